"""Parameters and buffers read from a model's files, piece by piece: a rank holds what it keeps, and one piece more.

Runs on: ranks, and anywhere a part of a model is loaded.
Takes:   a sketch, the layers that are wanted, what lies in the files.
Gives:   ``read_layers``; ``parts_of``, which says where each of our tensors is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.lake.stored_weights import ModelFolder, StoredTensor, differing, read_tensor
from pipelines.models.layered import LayeredModel, names_of, overwrite
from pipelines.models.standard_model import Standard, Zeros
from pipelines.models.translation import Specs, standard_specs
from pipelines.models.weights import TYPES

_TORCH_TYPES = {name: dtype for dtype, name in TYPES.items()}


@dataclass(frozen=True)
class StoredPart:
    """Where one of our tensors is: rows of a stored one, or of that one turned."""

    stored: StoredTensor
    turned: bool
    begin: int  # along our first dimension
    end: int


def parts_of(standard: Standard | None, specs: Specs, stored: Mapping[str, StoredTensor]) -> dict[str, StoredPart]:
    """By our names.

    Args:
        standard: whose names the files have; None: ours. specs: of ours. stored: by their names.
    Raises:
        ValueError: names or shapes are others than the model's.
    """
    expected = specs if standard is None else standard_specs(standard, specs)
    if expected.keys() != stored.keys():
        raise ValueError(differing(expected.keys(), stored.keys()))
    for name, (shape, _) in expected.items():
        if stored[name].shape != tuple(shape):
            raise ValueError(f"{name}: shape {stored[name].shape} is not {tuple(shape)}")
    if standard is None:
        return {name: StoredPart(stored[name], False, 0, shape[0] if shape else 1) for name, (shape, _) in specs.items()}
    parts = {}
    for tensor in standard.tensors:
        begin = 0
        for part in tensor.parts:
            if isinstance(part, Zeros):  # values that we leave out
                begin += part.length
            else:
                parts[part] = StoredPart(stored[tensor.name], tensor.turned, begin, begin + specs[part][0][0])
                begin = parts[part].end
    return parts


def read_layers(model: LayeredModel, layers: Collection[str], parts: Mapping[str, StoredPart], folder: ModelFolder
                ) -> dict[str, str]:
    """Gives parameters and persistent buffers of some layers of a sketch the values of the files, converted to their types;
    of a model that has memory from the start, all of them.

    Returns:
        The hash of each stored tensor that was read, by its name.
    Raises:
        OSError, ValueError: a file cannot be read, or ends early.
    """
    from_the_start = not any(value.is_meta for _, value in model.named_state())
    model.fill(layers, lambda name, value: None, only=parts.keys())
    wanted: dict[StoredTensor, list[tuple[Tensor, StoredPart]]] = {}
    for value, names in names_of(model.named_state()).items():
        if from_the_start or (not value.is_meta and any(name.split(".")[0] in layers for name in names)):
            wanted.setdefault(parts[names[0]].stored, []).append((value.detach(), parts[names[0]]))
    digests = {}
    for name in sorted({stored.file for stored in wanted}):
        with folder.open(name) as file:
            for stored in sorted((each for each in wanted if each.file == name), key=lambda each: each.begin):
                digests[stored.name] = _read(file, stored, wanted[stored])
    return digests


def _read(file: object, stored: StoredTensor, takers: list[tuple[Tensor, StoredPart]]) -> str:
    whole = [torch.empty(value.shape, dtype=value.dtype) if 0 in value.stride() else value for value, _ in takers]

    def take(first: int, piece: memoryview) -> None:
        rows = torch.frombuffer(piece, dtype=_TORCH_TYPES[stored.dtype]).view(-1, *stored.shape[1:])
        for value, (_, part) in zip(whole, takers, strict=True):
            if part.turned:
                value.T[first : first + len(rows)] = rows[:, part.begin : part.end]
            else:
                begin, end = max(first, part.begin), min(first + len(rows), part.end)
                if begin < end:
                    own = value.view(1) if not value.dim() else value
                    own[begin - part.begin : end - part.begin] = rows[begin - first : end - first]

    digest = read_tensor(file, stored, take)
    for value, (target, _) in zip(whole, takers, strict=True):
        if value is not target:  # an expanded view: one value in memory, which cannot be written piece by piece
            overwrite(target, value)
    return digest
