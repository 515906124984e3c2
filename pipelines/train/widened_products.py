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
from collections.abc import Callable
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
        for name in ("mm", "bmm", "addmm", "baddbmm"):
            product, into = (torch.library.get_kernel(f"aten::{each}", "CPU") for each in (name, f"{name}.out"))
            library.impl(name, _widened(product), "CPU", with_keyset=True)
            library.impl(f"{name}.out", _widened_into(product, into), "CPU", with_keyset=True)  # what is compiled calls this


def _widened(product: Any) -> Callable[..., Tensor]:
    def widened(keys: Any, *tensors: Tensor, **scalars: float) -> Tensor:
        if tensors[-1].dtype != torch.bfloat16:
            found: Tensor = product.call_boxed(keys, *tensors, **scalars)
            return found
        wide: Tensor = product.call_boxed(keys, *(tensor.float() for tensor in tensors), **scalars)
        return wide.bfloat16()

    return widened


def _widened_into(product: Any, into: Any) -> Callable[..., Tensor]:
    def widened(keys: Any, *tensors: Tensor, out: Tensor, **scalars: float) -> Tensor:
        if tensors[-1].dtype != torch.bfloat16 or out.dtype != torch.bfloat16:
            found: Tensor = into.call_boxed(keys, *tensors, out=out, **scalars)
            return found
        wide: Tensor = product.call_boxed(keys, *(tensor.float() for tensor in tensors), **scalars)
        return (out if out.shape == wide.shape else out.resize_(wide.shape)).copy_(wide)

    return widened
