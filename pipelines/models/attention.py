"""Attention over the positions of a text.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   query, key and value of each head and position.
Gives:   ``causal_attention``, for training; ``attention``, with a mask of one's own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

PLAIN_ATTENTION_LENGTH = 512


def attention(query_BHTd: Tensor, key_BGTd: Tensor, value_BGTd: Tensor, mask: Tensor | None = None, *, is_causal: bool = False
              ) -> Tensor:
    """Scaled-dot-product attention: ``mixed_BHTd``.

    Args:
        key_BGTd: G divides H: each serves H / G queries that lie one after the other. Source: Ainslie et al. 2023.
        mask: is added to the scores, [B, H, T, T] or broadcast to it.
    """
    return functional.scaled_dot_product_attention(query_BHTd, key_BGTd, value_BGTd, mask, is_causal=is_causal,
                                                   enable_gqa=query_BHTd.shape[1] != key_BGTd.shape[1])


def causal_attention(query_BHTd: Tensor, key_BGTd: Tensor, value_BGTd: Tensor) -> Tensor:
    """``attention`` in which no position sees a later one.

    On a CPU torch's fused kernel is slower in bfloat16 than plain matrix products, which use its bfloat16 instructions: 48
    against 20 ms forward and backward for [16, 4, 256, 48]. They keep T x T weights, so long sequences are left to it.
    """
    batch, heads, length, _ = query_BHTd.shape
    if key_BGTd.dtype != torch.bfloat16 or key_BGTd.device.type != "cpu" or length > PLAIN_ATTENTION_LENGTH:
        return attention(query_BHTd, key_BGTd, value_BGTd, is_causal=True)
    if key_BGTd.shape[1] != heads:
        key_BGTd, value_BGTd = (part.repeat_interleave(heads // part.shape[1], 1) for part in (key_BGTd, value_BGTd))
    # a bias has made float32 of what autocast had narrowed
    query, key, value = (part.to(torch.bfloat16).flatten(0, 1) for part in (query_BHTd, key_BGTd, value_BGTd))
    future_TT = torch.full((length, length), -math.inf, dtype=key.dtype).triu(1)
    scores = torch.baddbmm(future_TT.expand(batch * heads, -1, -1), query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), value).view_as(query_BHTd)
