"""Replica: how one copy of the model computes the gradient of its share of a step.

Runs on: ranks.
Takes:   this replica's micro-batches.
Gives:   ``Replica``, which ``WholeReplica`` and ``SplitReplica`` are. It knows nothing of other replicas: how they come to
         agree is the matter of ``agreement/``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from pipelines.feed.batches import Batch
from pipelines.parallel.steps import See, Totals, Work
from pipelines.plan.places import Place


@dataclass(frozen=True)
class Computed:
    """What a rank's forwards and backwards of one step gave, beside the gradients."""

    own: Totals  # of the loss that this rank computed
    waited_s: float = 0.0  # only for other segments
    timeline: list[Work] = field(default_factory=list)  # of a split model
    began_s: float = 0.0  # Unix time that the timeline counts from
    disagreement: int = 0  # adds up to 0 over the ranks of a replica whose first and last segment saw the same samples


class Replica(Protocol):
    """One copy of the model, seen from one of its ranks; built once per run."""

    place: Place

    @property
    def held(self) -> nn.Module:
        """What this rank holds of the model, and its optimizer updates."""

    @property
    def additions(self) -> dict[nn.Parameter, int]:
        """The trained parameters held, in the order in which backward makes their gradients; and how many backwards of one
        micro-batch add to each."""

    @property
    def hooks_tell(self) -> bool:
        """Whether autograd's hooks tell of every addition to a gradient."""

    @property
    def counted(self) -> list[nn.Parameter]:
        """Of the trained parameters held, those that count in the norm of the whole model: of copies, the first."""

    @property
    def specs(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and type of what ``whole_state`` gives, by name, in its order."""

    def num_micro_batches(self, micro_batches: list[Batch]) -> int:
        """How many micro-batches are run of a step that gave these to this rank."""

    def compute(self, micro_batches: list[Batch], scale: float, epoch: int) -> Computed:
        """Forwards and backwards: adds to every ``grad`` the gradient of this replica's summed loss, times ``scale``.

        ``micro_batches`` have no fields on a rank that needs neither inputs nor targets.
        """

    def join_copies(self) -> None:
        """Adds up the gradients of parameters that several segments hold a copy of."""

    def sum_over_segments(self, values: Tensor) -> None:
        """Replaces ``values`` by its sum over the replica's ranks, in place."""

    def evaluate(self, micro_batches: Iterable[Batch], num_micro_batches: int, see: See) -> Totals:
        """Forward only, in evaluation mode: the totals of the loss that this rank computed.

        Args:
            num_micro_batches: how many this replica has, also where ``micro_batches`` is empty.
            see: called for each micro-batch on the rank that has the model's output; samples may come that count in nothing.
        """

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        """On rank 0, every parameter and persistent buffer of the model on the CPU, one at a time, in the order of
        ``specs``; elsewhere nothing.

        Every rank of the first replica has to run through it at the same time.
        """
