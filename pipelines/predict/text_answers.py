"""What a language model says of texts: how likely they are, or how they go on.

Runs on: Spark's Python workers.
Takes:   UTF-8 texts; those that cannot be used come with a reason.
Gives:   ``TextAnswers``: the columns of ``contracts.py``, with reason "unencodable" for a text that the tokenizer cannot spell.

A score is the sum of the log-probabilities of a text's tokens, each counted once, the first after the token that ends the text
before it. A text longer than the model's window is read in windows that overlap by half:

    window 4      tokens 1 2 3 4 counted, then 5 6 behind 2 3 4, then 7 8 behind 4 5 6
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch.nn import functional

from pipelines.errors import CheckpointError
from pipelines.lake.manifest import TOKENIZER_NAME
from pipelines.models.exported_model import load_model
from pipelines.predict.contracts import Contract
from pipelines.prepare.text.encoders import TokenizersEncoder
from pipelines.tasks.generation import Prompt, Sampling, continuations

MOST_LOGITS = 2**25  # held at once: 128 MiB of float32


class _Window(NamedTuple):
    """A piece of a text that the model reads at once."""

    row: int
    begin: int  # among the text's tokens, the ending token before it counted
    end: int
    first: int  # the first token that is counted here; it is counted to the end


class TextAnswers:
    """Of one model: ``of`` is what the workers call."""

    def __init__(self, contract: Contract) -> None:
        exported = load_model(contract.files, factory=contract.settings.factory)
        try:
            self._tokenizer = Tokenizer.from_buffer(exported.files.read(TOKENIZER_NAME))
        except (OSError, ValueError) as error:
            raise CheckpointError(contract.folder, f"is not an exported model ({error})", "export it again") from error
        self._encoder = TokenizersEncoder(self._tokenizer)
        self._model, self._task, self._settings = exported.model, exported.task, contract.settings
        self._end_id = int(self._task.facts["end_of_text_id"])
        self._window, self._vocabulary = self._task.sizes["sequence_length"], self._task.sizes["vocabulary_size"]

    def of(self, ids: Sequence[str], contents: Sequence[bytes | None], reasons: Sequence[str | None]) -> dict[str, list[Any]]:
        """See ``worker_model.Answers``."""
        tokens: dict[int, list[int]] = {}
        said = list(reasons)
        for row, content in enumerate(contents):
            if content is None:
                continue
            encoded = self._encoder.encode(content)
            if encoded is None:
                said[row] = "unencodable"
            else:
                tokens[row] = encoded.tolist()
        columns = (self._scores(tokens, contents) if self._settings.generate is None
                   else self._continuations(tokens, ids, self._settings.generate))
        return {name: [values.get(row) for row in range(len(ids))] for name, values in columns.items()} | {"reason": said}

    def _scores(self, tokens: dict[int, list[int]], contents: Sequence[bytes | None]) -> dict[str, dict[int, Any]]:
        windows = sorted((window for row in tokens for window in windows_of(row, len(tokens[row]), self._window)),
                         key=lambda window: window.end - window.begin)
        sums = dict.fromkeys(tokens, 0.0)
        rows = max(1, min(self._settings.rows, MOST_LOGITS // (self._window * self._vocabulary)))
        for at in range(0, len(windows), rows):
            together = windows[at : at + rows]
            for window, value in zip(together, self._log_likelihoods(together, tokens), strict=True):
                sums[window.row] += value
        num_bytes = {row: len(contents[row] or b"") for row in tokens}
        return {"tokens": {row: len(of) for row, of in tokens.items()}, "bytes": num_bytes, "log_likelihood": sums,
                "bits_per_byte": {row: -value / math.log(2) / num_bytes[row] for row, value in sums.items()}}

    @torch.no_grad()
    def _log_likelihoods(self, windows: list[_Window], tokens: dict[int, list[int]]) -> list[float]:
        length = max(window.end - window.begin for window in windows)
        tokens_BT1 = torch.full((len(windows), length + 1), self._end_id)
        counted_BT = torch.zeros(len(windows), length, dtype=torch.bool)
        for i, window in enumerate(windows):
            text = [self._end_id, *tokens[window.row][max(window.begin - 1, 0) : window.end]]
            read = text if window.begin == 0 else text[1:]
            tokens_BT1[i, : len(read)] = torch.tensor(read)
            counted_BT[i, window.first - window.begin : window.end - window.begin] = True
        logits_BTV = self._model(tokens_BT1[:, :-1]).float()
        losses = functional.cross_entropy(logits_BTV[counted_BT], tokens_BT1[:, 1:][counted_BT], reduction="none").double()
        return [-float(part.sum()) for part in losses.split(counted_BT.sum(1).tolist())]

    def _continuations(self, tokens: dict[int, list[int]], ids: Sequence[str], num_tokens: int) -> dict[str, dict[int, Any]]:
        settings, rows = self._settings, list(tokens)
        prompts = [Prompt(tokens[row] or [self._end_id], row_seed(settings.seed, ids[row])) for row in rows]
        sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
        stop = settings.stop

        def is_over(further: list[int]) -> bool:
            return stop is not None and stop in self._tokenizer.decode(further)

        texts: dict[int, str] = {}
        counts: dict[int, int] = {}
        for index, further in continuations(self._model, prompts, num_tokens, self._task, sampling, rows=settings.rows,
                                            is_over=is_over):
            text = self._text_behind(prompts[index].tokens, further)
            texts[rows[index]] = text if stop is None else text.partition(stop)[0]
            counts[rows[index]] = len(further)
        return {"continuation": texts, "tokens": counts}

    def _text_behind(self, before: list[int], further: list[int]) -> str:
        """Further tokens as text: what a token spells may depend on the one before it (a space at a text's begin)."""
        head = self._tokenizer.decode(before[-4:])
        whole = self._tokenizer.decode([*before[-4:], *further])
        return str(whole.removeprefix(head) if whole.startswith(head) else self._tokenizer.decode(further))


def windows_of(row: int, num_tokens: int, window: int) -> Iterator[_Window]:
    """How a text is read: every token counted in one window, the first ones of a window behind half a window of others."""
    begin = first = 0
    while first < num_tokens:
        end = min(begin + window, num_tokens)
        yield _Window(row, begin, end, first)
        first, begin = end, max(end - window // 2, 0)


def row_seed(seed: int, row_id: str) -> int:
    """63 bits that only the seed and the row decide."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row_id}".encode()).digest()[:8], "little") >> 1
