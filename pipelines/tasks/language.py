"""The task ``language``: predict each next token.

Runs on: ranks, and the process in which the driver lets a user's model be looked at.
Takes:   batches with the fields ``tokens`` [B, T + 1] and ``length`` [B], see ``prepare/text/language_rows.py``.
Gives:   ``Language``, a ``Task``: a model of it goes from tokens to logits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from pipelines.config.recipe import Recipe
from pipelines.config.tasks import LanguageTask
from pipelines.feed.batches import Batch
from pipelines.lake.exhibits import Exhibit, TextExhibit
from pipelines.lake.findings import Findings
from pipelines.lake.manifest import TOKENIZER_NAME
from pipelines.lake.metric_facts import Metrics
from pipelines.lake.store import Store
from pipelines.lake.task_facts import TaskFacts
from pipelines.tasks.generation import Writer
from pipelines.tasks.task import IGNORED, AsTrained

LARGEST_EXPONENT = 700.0  # of e, whose power a float can hold


class Language:
    """A ``Task``; its units are tokens."""

    model_takes_and_gives = "the first takes tokens [B, T], the last returns logits [B, T, vocabulary_size]"
    exported_files = (TOKENIZER_NAME,)
    mistakes = None

    def __init__(self, facts: TaskFacts) -> None:
        self._vocabulary_size, self._sequence_length = facts.sizes["vocabulary_size"], facts.sizes["sequence_length"]
        self.facts = facts

    def inputs_and_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """``inputs_BT`` and ``targets_BT`` (int64); targets past a row's length or of weight 0 are ``IGNORED``."""
        tokens_BT1 = batch.fields["tokens"].long()
        targets_BT = tokens_BT1[:, 1:].clone()
        position_T = torch.arange(1, tokens_BT1.shape[1], device=tokens_BT1.device)
        counted_BT = (position_T < batch.fields["length"][:, None]) & (batch.weights_B[:, None] > 0)
        targets_BT[~counted_BT] = IGNORED
        return tokens_BT1[:, :-1], targets_BT

    def loss_sum(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of ``logits_BTV`` and ``targets_BT``."""
        return functional.cross_entropy(output.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")

    def num_counted(self, targets: Tensor) -> int:
        return int((targets != IGNORED).sum())

    @property
    def num_metric_sums(self) -> int:
        return 2

    def metric_sums(self, output: Tensor, targets: Tensor) -> Tensor:
        """How many tokens were the likeliest, and of how many."""
        counted_BT = targets != IGNORED
        right_BT = (output.argmax(-1) == targets) & counted_BT
        return torch.stack([right_BT.sum(), counted_BT.sum()]).double()

    def metrics(self, loss: float, sums: Tensor, dataset: TaskFacts, split: str) -> Metrics:
        """Bits per byte are the split's as a whole where only some of its rows were asked for: by its mean bytes of a token."""
        right, counted = sums.tolist()
        token_bytes = dataset.facts.get("token_bytes", {}).get(split)
        return {"perplexity": math.exp(loss) if loss < LARGEST_EXPONENT else None,
                "bits_per_byte": loss / math.log(2) / token_bytes if token_bytes else None,
                "accuracy": right / counted if counted else None}

    def findings(self, sums: Tensor) -> Findings:
        return Findings()

    def example(self, samples: int) -> Batch:
        """Tokens that count up from the sample's number."""
        places_BT1 = torch.arange(samples)[:, None] + torch.arange(self._sequence_length + 1)
        lengths_B = torch.full((samples,), self._sequence_length + 1, dtype=torch.int32)
        return Batch({"tokens": (places_BT1 % self._vocabulary_size).int(), "length": lengths_B}, torch.ones(samples),
                     torch.arange(samples))

    def exhibit_request(self, recipe: Recipe) -> dict[str, Any] | None:
        """A text that goes on from the recipe's prompt."""
        if not isinstance(recipe.task, LanguageTask) or not recipe.task.sample_tokens:
            return None
        return {"prompt": recipe.task.sample_prompt, "num_tokens": recipe.task.sample_tokens}

    def data_exhibits(self, rows: Batch, as_trained: AsTrained | None) -> list[Exhibit]:
        return []

    def exhibits(self, model: nn.Module, request: dict[str, Any], files: Store, rows: Batch | None) -> list[Exhibit]:
        writer = Writer(model, Tokenizer.from_buffer(files.read(TOKENIZER_NAME)), self.facts)
        prompt, text = request["prompt"], writer.generate(request["prompt"], request["num_tokens"])
        return [TextExhibit("What it writes", prompt, text.removeprefix(prompt))]
