"""Text from a trained language model.

Runs on: rank 0, and anywhere an exported model is loaded.
Takes:   a model from tokens to logits, and a prompt's tokens.
Gives:   the continued tokens.
"""

from __future__ import annotations

import torch
from torch import nn

from pipelines.models.layered import evaluation_mode


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
    with evaluation_mode(model):
        for _ in range(num_tokens):
            seen = torch.tensor([tokens[-sequence_length:]], device=device)
            logits_V = model(seen)[0, -1].float().cpu() / temperature
            values, indices = logits_V.topk(min(top_k, logits_V.numel()))
            drawn = int(indices[torch.multinomial(values.softmax(-1), 1, generator=generator)])
            if drawn == stop_token:
                break
            tokens.append(drawn)
    return tokens
