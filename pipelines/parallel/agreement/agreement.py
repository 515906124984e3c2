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
from pipelines.parallel.steps import StepOutcome, Totals
from pipelines.plan.places import Place


class Agreement(Protocol):
    """What the training loop calls."""

    @property
    def place(self) -> Place:
        """Where this rank stands."""

    def step(self, micro_batches: list[Batch], learning_rate: float) -> StepOutcome:
        """One optimizer update from this replica's micro-batches and those of all others.

        The update is left out where the outcome is not finite.
        """

    def evaluate(self, micro_batches: Iterable[Batch], num_micro_batches: int) -> Totals:
        """Forward only, in evaluation mode; the totals of all replicas together.

        ``num_micro_batches`` is how many this replica has, also where ``micro_batches`` is empty.
        """

    @property
    def specs(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and type of what ``whole_state`` gives, by name, in its order."""

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        """The agreed model, as ``Replica.whole_state`` gives it."""
