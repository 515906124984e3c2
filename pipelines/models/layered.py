"""A model as a list of named layers run by one loop, so that it can be cut between any two of them.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   ordered (name, module) pairs; each module takes what the one before it returned.
Gives:   ``LayeredModel``; parameter names are ``<layer>.<parameter>`` and do not depend on any layout.
"""

from __future__ import annotations

from collections.abc import Iterable
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
