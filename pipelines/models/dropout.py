"""Dropout whose masks belong to the samples, and so are the same on every layout.

Runs on: ranks.
Takes:   a ``LayeredModel`` with torch's dropout layers.
Gives:   ``draw_by_sample``: the same with ``SampleDropout`` in their places.

What a sample loses is drawn from (seed, epoch, sample id, place in the model) by ``feed/draws.py``: it depends neither on
the rank that computes the sample nor on its micro-batch. Probabilities are multiples of 1 / 65,536.

Source: Srivastava et al. 2014 (dropout); Tompson et al. 2015 (of whole channels).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.errors import ConfigError, SparkringError
from pipelines.feed.draws import NUMBERS, DrawKey, draws
from pipelines.models.current import CurrentMicroBatch
from pipelines.models.device_draws import device_draws
from pipelines.models.layered import LayeredModel

_OF_CHANNELS = {nn.Dropout: False, nn.Dropout1d: True, nn.Dropout2d: True, nn.Dropout3d: True}


class SampleDropout(nn.Module):
    """Takes and gives ``[B, ...]``, B the samples of the micro-batch; outside of a training step it is torch's own."""

    def __init__(self, p: float, of_channels: bool, place: str, seed: int, current: CurrentMicroBatch) -> None:
        """``of_channels``: ``[B, C, ...]`` loses whole channels."""
        super().__init__()
        self.p, self.of_channels, self.place, self.current = p, of_channels, place, current
        self._key, self._losing = DrawKey.of(seed, place), round(p * NUMBERS)
        self._turn, self._calls, self._most_calls = -1, 0, 0

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return hidden
        if self.current.sample_ids_B is None:
            return functional.dropout(hidden, self.p)
        return hidden * self._factors(hidden)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _factors(self, hidden: Tensor) -> Tensor:
        """0 or 1 / (1 - p), for every value or channel."""
        ids_B = self.current.sample_ids_B
        if ids_B is None or len(hidden) != len(ids_B):
            raise ValueError(f"dropout {self.place} takes {tuple(hidden.shape)} in a micro-batch of "
                             f"{0 if ids_B is None else len(ids_B)} samples: its first dimension must be the samples'")
        shape = (*hidden.shape[:2], *(1 for _ in hidden.shape[2:])) if self.of_channels else tuple(hidden.shape)
        if self._losing == NUMBERS:
            return hidden.new_zeros(shape)
        count, turn = math.prod(shape[1:]), self._next_turn()
        scale = NUMBERS / (NUMBERS - self._losing)
        if hidden.device.type == "cuda":
            drawn = device_draws(self._key, self.current.epoch, self.current.ids_on(hidden.device), count, turn)
            factors = (drawn >= self._losing) * scale
        else:
            drawn_BN = draws(self._key, self.current.epoch, ids_B.numpy(), count, turn)
            factors = torch.from_numpy(np.multiply(drawn_BN >= self._losing, np.float32(scale), dtype=np.float32))
        return factors.view(shape).to(hidden.dtype)

    def _next_turn(self) -> int:
        """How often this module has been called in this forward. A forward that is run again in a backward (checkpointing)
        draws what it had drawn."""
        if torch._C._current_graph_task_id() != -1:
            if self._most_calls > 1:
                raise RuntimeError(f"dropout {self.place} is called {self._most_calls} times in a forward that backward runs "
                                   "again: give each call a dropout layer of its own")
            return 0
        self._calls = self._calls + 1 if self._turn == self.current.turn else 1
        self._turn, self._most_calls = self.current.turn, max(self._most_calls, self._calls)
        return self._calls - 1

    def extra_repr(self) -> str:
        return f"p={self.p}, of_channels={self.of_channels}"


def draw_by_sample(model: LayeredModel, seed: int) -> LayeredModel:
    """Puts a ``SampleDropout`` in the place of each of torch's dropout layers.

    Raises:
        ConfigError: several layers share a module that has one, so that its place is not one.
    """
    for name, module in list(model.named_modules(remove_duplicate=False)):
        for own_name, child in list(module._modules.items()):  # named_children leaves out what it has seen
            place = f"{name}.{own_name}".lstrip(".")
            if isinstance(child, SampleDropout) and child.place != place and child.p:
                raise ConfigError(SparkringError(
                    "model.factory", f"layers share a module with a dropout ({child.place}, {place}), whose draws would be "
                    "the same", "give each layer a module of its own; they may share its parameters"))
            if type(child) in _OF_CHANNELS:
                setattr(module, own_name, SampleDropout(child.p, _OF_CHANNELS[type(child)], place, seed, model.current))
    return model
