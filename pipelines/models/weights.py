"""The file of a model's weights, in the format safetensors, written tensor by tensor.

Runs on: rank 0.
Takes:   a file that is open; parameters and buffers by name, one at a time.
Gives:   content that safetensors' own readers read; ``TYPES``, what it can hold.

Source: the format's description (Hugging Face, safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import BinaryIO

import torch

from pipelines.models.layered import bits_of

TYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.complex64: "C64",
         torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}


def write_weights(file: BinaryIO, state: Iterable[tuple[str, torch.Tensor]], specs: Mapping[str, tuple[torch.Size, torch.dtype]],
                  notes: dict[str, str]) -> None:
    """Writes the whole content.

    Args:
        state: taken and written one at a time. specs: name to shape and type, in the order of ``state``.
        notes: kept in the header.
    """
    file.write(_header(specs, notes))
    for name, value in state:
        if (value.shape, value.dtype) != specs[name]:
            raise ValueError(f"{name}: {value.dtype} {tuple(value.shape)} is not {specs[name]}")
        file.write(bits_of(value).numpy().data if value.numel() else b"")


def _header(specs: Mapping[str, tuple[torch.Size, torch.dtype]], notes: dict[str, str]) -> bytes:
    """Length and JSON."""
    entries: dict[str, object] = {"__metadata__": notes}
    at = 0
    for name, (shape, dtype) in specs.items():
        end = at + shape.numel() * dtype.itemsize
        entries[name] = {"dtype": TYPES[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # so that the values are aligned
    return len(text).to_bytes(8, "little") + text
