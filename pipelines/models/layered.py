"""A model as a list of named layers run by one loop, so that it can be cut between any two of them.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   ordered (name, module) pairs; each module takes what the one before it returned.
Gives:   ``LayeredModel``; parameter names are ``<layer>.<parameter>`` and do not depend on any layout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class LayeredModel(nn.Module):
    """Runs its layers in order.

    Two layers may share one parameter object (tied weights); ``state_dict`` then names it under the first.
    """

    def __init__(self, layers: Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__()
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

    def names_of_parameters(self) -> dict[nn.Parameter, list[str]]:
        """All names of each parameter, in order; a tied one has several."""
        names: dict[nn.Parameter, list[str]] = {}
        for name, parameter in self.named_parameters(remove_duplicate=False):
            names.setdefault(parameter, []).append(name)
        return names

    def fill(self, layers: Collection[str], initialise: Callable[[str, torch.Tensor], None]) -> None:
        """Gives the parameters of some layers, sketched on the meta device, memory and values.

        Args:
            initialise: writes a parameter's values; called with the first of its names, whichever layer is filled.
        """
        for parameter, names in self.names_of_parameters().items():
            if not any(name.split(".")[0] in layers for name in names):
                continue
            filled = nn.Parameter(torch.empty_like(parameter, device="cpu"), requires_grad=parameter.requires_grad)
            with torch.no_grad():
                initialise(names[0], filled)
            for name in names:  # ties stay ties
                module, _, own_name = name.rpartition(".")
                self.get_submodule(module).register_parameter(own_name, filled)

    def specs(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and type of each parameter by name, each tied one once."""
        return {name: (parameter.shape, parameter.dtype) for name, parameter in self.named_parameters()}

    def unique_state(self) -> dict[str, torch.Tensor]:
        """Parameters by name, each tied one once, detached."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_unique_state(self, state: dict[str, torch.Tensor]) -> None:
        """Copies values into the parameters in place (ties stay ties).

        Raises:
            KeyError, ValueError: a name is missing or unknown, or a shape differs.
        """
        own = dict(self.named_parameters())
        if own.keys() != state.keys():
            raise KeyError(f"parameters differ: missing {sorted(own.keys() - state.keys())}, "
                           f"unknown {sorted(state.keys() - own.keys())}")
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != state[name].shape:
                    raise ValueError(f"{name}: shape {tuple(state[name].shape)} is not {tuple(parameter.shape)}")
                parameter.copy_(state[name])

    def num_parameters(self) -> int:
        """Number of trained values, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())


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
    if not any(parameter.is_meta for parameter in layer.parameters()):
        return layer if torch.device(device).type == "cpu" else copy.deepcopy(layer).to(device)
    filled = copy.deepcopy(layer).to_empty(device=device)
    for parameter in filled.parameters():
        nn.init.constant_(parameter, 0.01)  # not zero: reading memory that was never written is too fast
    return filled
