"""Batch normalisation over groups of the recipe: what a sample is normalised by does not depend on the layout.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   ``[B, C, ...]``, the current micro-batch's sample ids.
Gives:   ``GroupedBatchNorm``; its running statistics are settled once a step (``parallel/statistics.py``).

A group is ``group_samples`` consecutive places of one lane in one step; a lane's real samples come first in it, so those of a
group do too. A micro-batch holds whole groups (``plan/layout.py``). Real samples are normalised by the mean and deviation of
their group; a group of one, and padding, by the running statistics, as in an evaluation.

Source: Ioffe & Szegedy 2015; Hoffer et al. 2017 ("ghost" batches).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.models.current import CurrentMicroBatch

MOMENTUM = 0.1  # of a step's statistics in the running ones
EPSILON = 1e-5


class GroupedBatchNorm(nn.Module):
    """Where no training step runs, a micro-batch in training mode is one group, and nothing is noted."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, group_samples: int) -> None:
        super().__init__()
        self.group_samples, self.current = group_samples, CurrentMicroBatch()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self._noted: list[tuple[Tensor, Tensor]] = []  # mean and variance of each group since the last step

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training:
            return self._by_running(hidden)
        ids_B = self.current.sample_ids_B
        if ids_B is None:
            return functional.batch_norm(hidden, None, None, self.weight, self.bias, True, 0.0, EPSILON)
        if len(ids_B) != len(hidden) or len(hidden) % self.group_samples:
            raise ValueError(f"normalisation over groups of {self.group_samples} samples takes {tuple(hidden.shape)} in a "
                             f"micro-batch of {len(ids_B)}: its first dimension must be the samples', in whole groups")
        results = []
        for part, ids_S in zip(hidden.split(self.group_samples), ids_B.split(self.group_samples), strict=True):
            real = int((ids_S >= 0).sum())
            normalised = real if real > 1 else 0
            if normalised:
                results.append(self._by_own(part[:normalised]))
            if normalised < len(part):
                results.append(self._by_running(part[normalised:]))
        return torch.cat(results) if len(results) > 1 else results[0]

    def _by_own(self, group: Tensor) -> Tensor:
        mean_C, variance_C = torch.zeros_like(self.bias, requires_grad=False), torch.zeros_like(self.bias, requires_grad=False)
        result = functional.batch_norm(group, mean_C, variance_C, self.weight, self.bias, True, 1.0, EPSILON)
        if torch._C._current_graph_task_id() == -1:  # else backward runs a forward again
            self._noted.append((mean_C, variance_C))
        return result

    def _by_running(self, hidden: Tensor) -> Tensor:
        return functional.batch_norm(hidden, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, EPSILON)

    def noted(self) -> Tensor:
        """Sum of the groups' means and variances since the last call, and how many they are: float64 [2 C + 1], on the CPU."""
        total = torch.zeros(2 * len(self.bias) + 1, dtype=torch.float64)
        if self._noted:
            means, variances = (torch.stack(each).double().sum(0).cpu() for each in zip(*self._noted, strict=True))
            total = torch.cat([means, variances, torch.tensor([len(self._noted)], dtype=torch.float64)])
        self._noted = []
        return total

    @torch.no_grad()
    def settle(self, total: Tensor) -> None:
        """One update of the running statistics by the mean over all groups of a step; ``total``: ``noted`` of all replicas."""
        groups = total[-1].item()
        if groups:
            means, variances = (total[:-1] / groups).chunk(2)
            for running, now in ((self.running_mean, means), (self.running_var, variances)):
                running.copy_((1 - MOMENTUM) * running.double().cpu() + MOMENTUM * now)
