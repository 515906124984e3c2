"""Running statistics of normalisations, the same on every replica: one update a step, from all groups of all replicas.

Runs on: ranks.
Takes:   what this rank holds of the model, the ring of its segment.
Gives:   ``RunningStatistics``: the sum over the replicas, in float64, started early and settled late.
"""

from __future__ import annotations

import torch
from torch import nn

from pipelines.models.grouped_norm import GroupedBatchNorm
from pipelines.parallel.ring import Ring


class RunningStatistics:
    """Of all normalisations that a rank holds, as one tensor."""

    def __init__(self, held: nn.Module, ring: Ring) -> None:
        self._norms = [module for module in held.modules() if isinstance(module, GroupedBatchNorm)]
        self._ring = ring

    def start(self) -> None:
        if self._norms:
            noted = [norm.noted() for norm in self._norms]
            self._sizes, self._total = [len(each) for each in noted], torch.cat(noted)
            self._finish = self._ring.start_sum(self._total, "running.statistics")

    def settle(self) -> None:
        """Waits for the sum."""
        if self._norms:
            self._finish()
            for norm, total in zip(self._norms, self._total.split(self._sizes), strict=True):
                norm.settle(total)
