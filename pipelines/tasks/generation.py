"""Tokens from a trained language model.

Runs on: anywhere an exported model is loaded.
Takes:   a model from tokens to logits, in evaluation mode, and a prompt's tokens.
Gives:   the continued tokens; ``Writer``, which takes and gives text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import nn

from pipelines.lake.task_facts import TaskFacts


@torch.no_grad()
def generate(model: nn.Module, prompt: list[int], num_tokens: int, sequence_length: int, *,
             temperature: float = 0.8, top_k: int = 50, seed: int = 0, stop_token: int | None = None) -> list[int]:
    """Samples ``num_tokens`` further tokens.

    Args:
        prompt: at least one token. sequence_length: how many of the newest tokens the model sees at most.
        temperature: > 0; small is safer, large is livelier. top_k: only the k likeliest tokens are drawn.
        stop_token: generation ends before this token.
    Returns:
        The prompt followed by the generated tokens.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    tokens = list(prompt)
    for _ in range(num_tokens):
        seen = torch.tensor([tokens[-sequence_length:]], device=device)
        logits_V = model(seen)[0, -1].float().cpu() / temperature
        values, indices = logits_V.topk(min(top_k, logits_V.numel()))
        drawn = int(indices[torch.multinomial(values.softmax(-1), 1, generator=generator)])
        if drawn == stop_token:
            break
        tokens.append(drawn)
    return tokens


@dataclass(frozen=True)
class Writer:
    """A language model with its tokenizer: text to text."""

    model: nn.Module
    tokenizer: Tokenizer
    task: TaskFacts

    def generate(self, prompt: str, num_tokens: int = 100, *, temperature: float = 0.8, top_k: int = 50, seed: int = 0) -> str:
        """The prompt and its continuation."""
        end_of_text = self.task.facts["end_of_text_id"]
        start = self.tokenizer.encode(prompt).ids or [end_of_text]
        tokens = generate(self.model, start, num_tokens, self.task.sizes["sequence_length"], temperature=temperature,
                          top_k=top_k, seed=seed, stop_token=end_of_text)
        return str(self.tokenizer.decode(tokens))
