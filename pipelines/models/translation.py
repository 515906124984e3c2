"""Parameters under another library's names and shapes, and back.

Runs on: rank 0 (there), anywhere an exported model is loaded (back).
Takes:   ``Standard``; parameters and buffers by name, one at a time.
Gives:   ``standard_specs``, ``standard_state``; ``own_value``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from pipelines.models.standard_model import Standard, StandardTensor, Zeros

Specs = Mapping[str, tuple[torch.Size, torch.dtype]]


def standard_specs(standard: Standard, specs: Specs) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each of their tensors.

    Args:
        specs: of each of ours.
    """
    found = {}
    for tensor in standard.tensors:
        ours = [specs[part] for part in tensor.parts if isinstance(part, str)]
        shape, dtype = ours[0] if ours else (torch.Size([0]), torch.float32)
        shape = torch.Size([sum(_lengths(tensor, specs)), *shape[1:]])
        found[tensor.name] = (shape[::-1] if tensor.turned else shape, dtype)
    return found


def standard_state(standard: Standard, state: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Each of their tensors, as soon as its parts are there.

    Args:
        state: ours, each once; taken one at a time.
    """
    given = iter(state)
    waiting: dict[str, Tensor] = {}

    def of(part: str | Zeros) -> Tensor:
        if isinstance(part, Zeros):
            return torch.zeros(part.length)
        while part not in waiting:
            name, value = next(given)
            waiting[name] = value
        return waiting.pop(part)

    for tensor in standard.tensors:
        parts = [of(part) for part in tensor.parts]
        value = parts[0] if len(parts) == 1 else torch.cat(parts)
        yield tensor.name, value.T if tensor.turned else value
    if left := [*waiting, *(name for name, _ in given)]:
        raise ValueError(f"{', '.join(left[:3])}: has no place in {standard.model_type}")


def own_value(standard: Standard, specs: Specs, get: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
    """What gives each of ours, as a view of theirs where ``get`` gives one.

    Args:
        specs: of ours. get: one of theirs, by its name.
    Raises:
        ValueError (from what is returned): theirs has another shape.
    """
    shapes = standard_specs(standard, specs)
    places = {part: (tensor, i) for tensor in standard.tensors for i, part in enumerate(tensor.parts) if isinstance(part, str)}

    def value_of(name: str) -> Tensor:
        tensor, i = places[name]
        value = get(tensor.name)
        if value.shape != shapes[tensor.name][0]:
            raise ValueError(f"{tensor.name}: shape {tuple(value.shape)} is not {tuple(shapes[tensor.name][0])}")
        lengths = _lengths(tensor, specs)
        return (value.T if tensor.turned else value).narrow(0, sum(lengths[:i]), lengths[i])

    return value_of


def _lengths(tensor: StandardTensor, specs: Specs) -> list[int]:
    """Of its parts, along the first dimension."""
    return [part.length if isinstance(part, Zeros) else specs[part][0][0] for part in tensor.parts]
