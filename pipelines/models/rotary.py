"""Rotary positions: pairs of a head's values, turned by where they stand.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   query or key of each head and position.
Gives:   ``turned``; ``turns``, the table that it takes.

Source: Su et al. 2021; which values are a pair: transformers, as Llama's are exported.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelines.models.llama.settings import RopeScaling
from pipelines.models.llama.slowness import slowness


def turns(sequence_length: int, head_width: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """``turns_2Td``: cosine and sine of each position's angles, those of a pair twice. Pair i turns by
    theta^(-2 i / head_width) from one position to the next, or as ``scaling`` slows it down."""
    speed_f = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    if scaling is not None:
        speed_f = speed_f / torch.from_numpy(slowness(speed_f.numpy(), scaling))
    angle_Tf = torch.arange(sequence_length, dtype=torch.float64)[:, None] * speed_f
    return torch.stack((angle_Tf.cos(), angle_Tf.sin())).repeat(1, 1, 2).float()


def turned(value_BTHd: Tensor, turns_2Td: Tensor) -> Tensor:
    """Each value with the one half a head further, as a pair that is turned by its position's angle.

    Args:
        turns_2Td: or [2, B, T, d], where each text has places of its own.
    """
    cosine_T1d, sine_T1d = turns_2Td.to(value_BTHd.dtype).unsqueeze(-2)
    result: Tensor = _Turned.apply(value_BTHd, cosine_T1d, sine_T1d)
    return result


class _Turned(torch.autograd.Function):
    """Its gradient is turned back: half of the work of what autograd would do."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _turned(value, cosine, sine)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _turned(gradients[0], cosine, -sine), None, None


def _turned(value: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = value.shape[-1] // 2
    result = value * cosine
    result[..., :half].addcmul_(value[..., half:], sine[..., :half], value=-1.0)
    result[..., half:].addcmul_(value[..., :half], sine[..., half:])
    return result
