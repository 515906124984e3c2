"""What a layer may know of the micro-batch that runs: epoch and samples, never where it runs or with whom.

Runs on: ranks.
Takes:   what the replica says before each forward and backward of a micro-batch.
Gives:   ``CurrentMicroBatch``, one for each ``LayeredModel``, which its layers share.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class CurrentMicroBatch:
    """``sample_ids_B`` is None where no training step runs."""

    def __init__(self) -> None:
        self.epoch, self.turn = 0, 0  # turn: how often another one has begun
        self.sample_ids_B: Tensor | None = None  # int64, on the CPU; below 0: padding
        self._on_device: Tensor | None = None

    def at(self, epoch: int, sample_ids_B: Tensor) -> None:
        """This micro-batch runs from now on."""
        self.epoch, self.turn, self.sample_ids_B, self._on_device = epoch, self.turn + 1, sample_ids_B.cpu(), None

    def leave(self) -> None:
        """No training step runs."""
        self.sample_ids_B = self._on_device = None

    def ids_on(self, device: torch.device) -> Tensor:
        """``sample_ids_B`` there, copied once."""
        if self.sample_ids_B is None:
            raise RuntimeError("no micro-batch runs")
        if self._on_device is None or self._on_device.device != device:
            self._on_device = self.sample_ids_B.to(device)
        return self._on_device

    def __deepcopy__(self, memo: dict[int, Any]) -> CurrentMicroBatch:
        """Itself: copies of layers, made to measure them, run in the same micro-batch."""
        return self
