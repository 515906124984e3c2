"""The files of a model's weights, in the format safetensors, written tensor by tensor.

Runs on: rank 0.
Takes:   the folder of a model; parameters and buffers by name, one at a time.
Gives:   one file, or above ``FILE_BYTES`` several and an index, that safetensors' own readers and transformers read
         (``opened_weights.py`` reads them here); ``TYPES``, what they can hold.

Source: the format's description and transformers' index of several files (Hugging Face).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import BinaryIO

import torch

from pipelines.lake.exported import part_name
from pipelines.lake.store import Store
from pipelines.lake.stored_weights import INDEX_NAME, WEIGHTS_NAME
from pipelines.models.layered import bits_of

FILE_BYTES = 5 * 1000**3  # of one file, as transformers has it
TYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.complex64: "C64",
         torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}

Specs = Mapping[str, tuple[torch.Size, torch.dtype]]


def save_weights(model: Store, state: Iterable[tuple[str, torch.Tensor]], specs: Specs, notes: dict[str, str]) -> None:
    """Writes weights, or replaces those that are there: at any moment one whole set of them is.

    Args:
        state: taken and written one at a time. specs: name to shape and type, in the order of ``state``.
        notes: kept beside them; ``step`` makes the names of several files new ones.
    """
    files = _files(specs)
    if len(files) == 1:
        with model.writer(WEIGHTS_NAME) as file:
            write_weights(file, state, specs, notes)
        return
    before, given = _parts(model), iter(state)
    names = [part_name(notes.get("step", "0"), i, len(files)) for i in range(len(files))]
    for name, tensors in zip(names, files, strict=True):
        with model.writer(name) as file:
            write_weights(file, islice(given, len(tensors)), {each: specs[each] for each in tensors}, {"format": "pt"})
    for name, _ in given:
        raise ValueError(f"{name}: more parameters than were foretold")
    model.put(INDEX_NAME, json.dumps({"metadata": {"total_size": sum(map(_bytes, specs.values())), **notes}, "weight_map": {
        each: name for name, tensors in zip(names, files, strict=True) for each in tensors}}, indent=2))
    for name in before - set(names):  # visible until now
        model.remove(name)


def _files(specs: Specs) -> list[list[str]]:
    """Names of the tensors in each file."""
    files: list[list[str]] = [[]]
    held = 0
    for name, spec in specs.items():
        if files[-1] and held + _bytes(spec) > FILE_BYTES:
            files.append([])
            held = 0
        files[-1].append(name)
        held += _bytes(spec)
    return files


def _bytes(spec: tuple[torch.Size, torch.dtype]) -> int:
    return spec[0].numel() * spec[1].itemsize


def _parts(model: Store) -> set[str]:
    if model.facts(INDEX_NAME) is None:
        return set()
    return set(json.loads(model.read(INDEX_NAME))["weight_map"].values())


def write_weights(file: BinaryIO, state: Iterable[tuple[str, torch.Tensor]], specs: Specs, notes: dict[str, str]) -> None:
    """Writes the whole content of one file.

    Args:
        state: taken and written one at a time. specs: name to shape and type, in the order of ``state``.
        notes: kept in the header.
    """
    file.write(_header(specs, notes))
    for name, value in state:
        if (value.shape, value.dtype) != specs[name]:
            raise ValueError(f"{name}: {value.dtype} {tuple(value.shape)} is not {specs[name]}")
        file.write(bits_of(value).numpy().data if value.numel() else b"")


def _header(specs: Specs, notes: dict[str, str]) -> bytes:
    """Length and JSON."""
    entries: dict[str, object] = {"__metadata__": notes}
    at = 0
    for name, spec in specs.items():
        end = at + _bytes(spec)
        entries[name] = {"dtype": TYPES[spec[1]], "shape": list(spec[0]), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # so that the values are aligned
    return len(text).to_bytes(8, "little") + text
