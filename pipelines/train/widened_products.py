"""Matrix products of bfloat16 on a CPU without instructions for them: computed in float32, and rounded once.

Runs on: ranks, once in a process.
Takes:   nothing.
Gives:   ``has_bfloat16_products``; ``widen_products``, after which torch multiplies so, forward and backward, in any model.

A product of two bfloat16 values is exact in float32, and torch too sums such products in float32 and rounds the sum: what is
computed is the same up to the order of the sum. torch's own way takes five times as long as float32 on such a CPU (an Intel Xeon
with AVX-512 and neither AVX512-BF16 nor AMX, [2048, 256] x [256, 1024] on one core: 70 ms, float32 12 ms, widened 15 ms).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

_kept: list[Any] = []  # a library's kernels go when it goes


def has_bfloat16_products() -> bool:
    """Of processors that are not x86 it is believed."""
    known = torch.cpu.get_capabilities()
    return known.get("architecture") != "x86_64" or bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def widen_products() -> None:
    """Twice does no harm."""
    if _kept:
        return
    library = torch.library.Library("aten", "IMPL")
    _kept.append(library)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        for name, product in (("mm", _mm), ("bmm", _bmm), ("addmm", _addmm), ("baddbmm", _baddbmm)):
            library.impl(name, product, "CPU")


# What is not bfloat16 goes to torch's kernel that writes into a given tensor, which stays as it is.


def _mm(one: Tensor, other: Tensor) -> Tensor:
    if one.dtype != torch.bfloat16:
        return torch.mm(one, other, out=one.new_empty(len(one), other.shape[1]))
    return _mm(one.float(), other.float()).bfloat16()


def _bmm(one: Tensor, other: Tensor) -> Tensor:
    if one.dtype != torch.bfloat16:
        return torch.bmm(one, other, out=one.new_empty(len(one), one.shape[1], other.shape[2]))
    return _bmm(one.float(), other.float()).bfloat16()


def _addmm(added: Tensor, one: Tensor, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if one.dtype != torch.bfloat16:
        return torch.addmm(added, one, other, beta=beta, alpha=alpha, out=one.new_empty(len(one), other.shape[1]))
    return _addmm(added.float(), one.float(), other.float(), beta=beta, alpha=alpha).bfloat16()


def _baddbmm(added: Tensor, one: Tensor, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if one.dtype != torch.bfloat16:
        return torch.baddbmm(added, one, other, beta=beta, alpha=alpha,
                             out=one.new_empty(len(one), one.shape[1], other.shape[2]))
    return _baddbmm(added.float(), one.float(), other.float(), beta=beta, alpha=alpha).bfloat16()
