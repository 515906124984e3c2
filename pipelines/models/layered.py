"""A model as a list of named layers run by one loop, so that it can be cut between any two of them.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   ordered (name, module) pairs; each module takes what the one before it returned.
Gives:   ``LayeredModel``; names of parameters and buffers are ``<layer>.<name>`` and do not depend on any layout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.models.current import CurrentMicroBatch


class LayeredModel(nn.Module):
    """Runs its layers in order.

    Two layers may share one parameter or buffer object (tied weights); its name is the first one then.
    """

    def __init__(self, layers: Iterable[tuple[str, nn.Module]], *, any_pixel_order: bool = False) -> None:
        """
        Args:
            any_pixel_order: it computes the same where all channels of a pixel lie together in memory: no layer takes a view
                that needs torch's usual order.
        """
        super().__init__()
        self.any_pixel_order = any_pixel_order
        self.current = CurrentMicroBatch()
        for name, layer in layers:
            self.add_module(name, layer)

    @property
    def layers(self) -> dict[str, nn.Module]:
        """Layers by name, in the order in which they run."""
        return {name: layer for name, layer in self._modules.items() if layer is not None}

    def forward(self, value: Any) -> Any:
        for layer in self.layers.values():
            value = layer(value)
        return value

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters, then buffers; a tied one under each of its names."""
        yield from self.named_parameters(remove_duplicate=False)
        yield from self.named_buffers(remove_duplicate=False)

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """Of these, what a model is beside its code: all but buffers that are registered with ``persistent=False``."""
        kept = self.state_dict().keys()
        return ((name, value) for name, value in self.named_tensors() if isinstance(value, nn.Parameter) or name in kept)

    def fill(self, layers: Collection[str], initialise: Callable[[str, Tensor], None], *, only: Collection[str] | None = None
             ) -> None:
        """Gives the parameters and buffers of some layers memory and values, where they are still on the meta device.

        Args:
            initialise: writes the values of one; called with the first of its names, whichever layer is filled.
            only: first names of those to fill; None: all.
        """
        for value, names in names_of(self.named_tensors()).items():
            if not value.is_meta or not any(name.split(".")[0] in layers for name in names):
                continue
            if only is not None and names[0] not in only:
                continue
            filled = torch.empty_like(value, device="cpu", requires_grad=False)
            initialise(names[0], filled)
            if isinstance(value, nn.Parameter):
                filled = nn.Parameter(filled, requires_grad=value.requires_grad)
            for name in names:  # ties stay ties
                module, _, own_name = name.rpartition(".")
                setattr(self.get_submodule(module), own_name, filled)

    def specs(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and type of what ``unique_state`` gives, in the same order."""
        return {name: (value.shape, value.dtype) for name, value in self.unique_state().items()}

    def unique_state(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by name, each tied one once, detached."""
        return {names[0]: value.detach() for value, names in names_of(self.named_state()).items()}

    def load_unique_state(self, state: dict[str, Tensor]) -> None:
        """Copies values into parameters and persistent buffers in place (ties stay ties).

        Raises:
            KeyError, ValueError: a name is missing or unknown, or a shape differs.
        """
        for name, value in self._fitting(state).items():
            overwrite(value, state[name])

    def adopt(self, state: dict[str, Tensor]) -> None:
        """Makes parameters and persistent buffers of the given tensors, without a copy (ties stay ties).

        Raises:
            KeyError, ValueError: a name is missing or unknown, or a shape or type differs.
        """
        own = self._fitting(state)
        for name, value in own.items():
            if value.dtype != state[name].dtype:
                raise ValueError(f"{name}: {state[name].dtype} is not {value.dtype}")
        for value, names in names_of(self.named_state()).items():
            given = state[names[0]]
            if isinstance(value, nn.Parameter):
                given = nn.Parameter(given, requires_grad=value.requires_grad)
            for name in names:
                module, _, own_name = name.rpartition(".")
                setattr(self.get_submodule(module), own_name, given)

    def _fitting(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """``unique_state``, where the given one has the same names and shapes."""
        own = self.unique_state()
        if own.keys() != state.keys():
            raise KeyError(f"parameters and buffers differ: missing {sorted(own.keys() - state.keys())}, "
                           f"unknown {sorted(state.keys() - own.keys())}")
        for name, value in own.items():
            if value.shape != state[name].shape:
                raise ValueError(f"{name}: shape {tuple(state[name].shape)} is not {tuple(value.shape)}")
        return own


def overwrite(value: Tensor, given: Tensor) -> None:
    """Copies values into a tensor of the same shape."""
    for dim, stride in enumerate(value.stride()):
        if stride == 0:  # an expanded view: one value in memory, and torch would not write it several times
            value, given = value.narrow(dim, 0, 1), given.narrow(dim, 0, 1)
    value.copy_(given)


def names_of(named: Iterable[tuple[str, Tensor]]) -> dict[Tensor, list[str]]:
    """All names of each tensor, in order; a tied one has several."""
    names: dict[Tensor, list[str]] = {}
    for name, value in named:
        names.setdefault(value, []).append(name)
    return names


def bits_of(value: Tensor) -> Tensor:
    """A tensor's values as bytes, uint8 [n]: its own memory where that is contiguous."""
    return value.detach().contiguous().reshape(-1).view(torch.uint8)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape hold the same, NaN included."""
    return one.dtype == other.dtype and torch.equal(bits_of(one), bits_of(other))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Without dropout and the like; afterwards every module is in the mode that it was in (a user may have frozen some)."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def runnable(layer: nn.Module, device: torch.device | str = "cpu") -> nn.Module:
    """A layer to be measured on a device: itself where it is there, else a copy. One that is only sketched gets memory and
    arbitrary weights."""
    if not any(value.is_meta for value in (*layer.parameters(), *layer.buffers())):
        return layer if torch.device(device).type == "cpu" else copy.deepcopy(layer).to(device)
    filled = copy.deepcopy(layer).to_empty(device=device)
    for value in (*filled.parameters(), *filled.buffers()):
        value.detach().fill_(0.01)  # not zero: reading memory that was never written is too fast
    return filled
