"""``feed/draws.py`` in torch's operations: the same numbers, made where the model computes.

Runs on: ranks with a GPU.
Takes:   key, epoch, sample ids on the device.
Gives:   ``device_draws``, int64.

torch has no unsigned 64-bit arithmetic; additions, products, xor and shifts of int64 give the same bits where a shift to
the right is followed by a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipelines.feed.draws import NUMBERS_PER_BLOCK, DrawKey

_LOW = 0xFFFFFFFF
_FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10


def device_draws(key: DrawKey, epoch: int, sample_ids_B: Tensor, count: int, turn: int = 0) -> Tensor:
    """``[B, count]`` on the device of the ids."""
    blocks, device = -(-count // NUMBERS_PER_BLOCK), sample_ids_B.device
    shape = (len(sample_ids_B), blocks)
    block = torch.arange(1, blocks + 1, device=device).expand(shape)
    sample, others = sample_ids_B[:, None].expand(shape), torch.zeros(shape, dtype=torch.int64, device=device)
    counter = [block, sample, others + epoch, others + turn]
    low, high = key
    for _ in range(_ROUNDS):
        first, second = counter[0], counter[2]
        counter = [_high(_FACTORS[1], second) ^ counter[1] ^ _signed(low), second * _signed(_FACTORS[1]),
                   _high(_FACTORS[0], first) ^ counter[3] ^ _signed(high), first * _signed(_FACTORS[0])]
        low, high = low + _KEY_STEPS[0], high + _KEY_STEPS[1]
    words = torch.stack(counter, dim=-1)[..., None]
    return (words >> torch.arange(0, 64, 16, device=device) & 0xFFFF).flatten(1)[:, :count]


def _signed(value: int) -> int:
    """The int64 of the same lowest 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _high(factor: int, values: Tensor) -> Tensor:
    """The upper 64 bits of unsigned products."""
    factor_low, factor_high = factor & _LOW, factor >> 32
    low, high = values & _LOW, values >> 32 & _LOW
    lows, first, second = low * factor_low, low * factor_high, high * factor_low
    carry = ((lows >> 32 & _LOW) + (first & _LOW) + (second & _LOW)) >> 32
    return high * factor_high + (first >> 32 & _LOW) + (second >> 32 & _LOW) + carry
