"""Agreement: how replicas become one model, the optimizer's step included.

Runs on: ranks, all at the same time.
Takes:   a ``Replica`` of any kind.
Gives:   ``Agreement``, which ``EveryStep`` is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from torch import Tensor

from pipelines.feed.batches import Batch
from pipelines.parallel.steps import StepOutcome, Totals


class Agreement(Protocol):
    """What the training loop calls."""

    def step(self, micro_batches: list[Batch], learning_rate: float) -> StepOutcome:
        """One optimizer update from this replica's micro-batches and those of all others.

        The update is left out where the outcome is not finite.
        """

    def evaluate(self, micro_batches: Iterable[Batch], num_micro_batches: int) -> Totals:
        """Forward only, in evaluation mode; the totals of all replicas together.

        ``num_micro_batches`` is how many this replica has, also where ``micro_batches`` is empty.
        """

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        """The agreed model, as ``Replica.whole_state`` gives it."""
