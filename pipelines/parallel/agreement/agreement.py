"""Agreement: how replicas become one model, the optimizer's step included.

Runs on: ranks, all at the same time.
Takes:   a ``Replica`` of any kind.
Gives:   ``Agreement``, which ``EveryStep`` is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from pipelines.feed.batches import Batch
from pipelines.parallel.steps import See, StepOutcome, Totals
from pipelines.plan.places import Place


class Agreement(Protocol):
    """What the training loop calls."""

    @property
    def place(self) -> Place:
        """Where this rank stands."""

    def step(self, micro_batches: list[Batch], learning_rate: float, epoch: int) -> StepOutcome:
        """One optimizer update from this replica's micro-batches and those of all others.

        The update is left out where the outcome is not finite.
        """

    def evaluate(self, micro_batches: Iterable[Batch], num_micro_batches: int, see: See) -> Totals:
        """Forward only, in evaluation mode; the totals of all replicas together. Arguments as ``Replica.evaluate``."""

    def sum_over_ranks(self, values: Tensor) -> None:
        """Replaces ``values`` (of an evaluation, float64) by their sum over all ranks, in place."""

    @property
    def specs(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and type of what ``whole_state`` gives, by name, in its order."""

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        """The agreed model, as ``Replica.whole_state`` gives it."""
