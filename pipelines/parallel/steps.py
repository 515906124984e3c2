"""What a training step takes and gives, the same for every replica and agreement.

Runs on: ranks.
Takes:   figures.
Gives:   ``Totals``, ``StepOutcome``; ``See``, who looks at what an evaluation's samples gave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

See = Callable[[Any, Tensor, Tensor], None]  # a micro-batch's output, its targets, its sample_ids_B


@dataclass(frozen=True)
class Work:
    """A forward or backward of one part of the model on one micro-batch, in seconds from the step's beginning."""

    kind: str  # "forward", "loss", "backward", "weights" (the weights' gradients, where a schedule has them apart)
    part: int
    micro_batch: int
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class StepOutcome:
    """What one step's forward, backward and averaging gave; losses in nats."""

    loss: float  # mean over the global batch's units, which the task names
    global_units: int
    global_samples: int
    units: int  # whose loss this rank computed: summed over the ranks, the global ones
    samples: int  # as ``units``
    gradient_norm: float  # of the whole model, before clipping
    averaging_s: float  # time in which this rank only waited for gradients of other replicas
    finite: bool
    first_bad_rank: int | None  # lowest rank whose own loss is not finite
    pipeline_wait_s: float = 0.0  # time in which this rank only waited for other segments
    timeline: list[Work] = field(default_factory=list)  # of a split model
    began_s: float = 0.0  # Unix time that the timeline counts from


@dataclass(frozen=True)
class Totals:
    """Loss in nats, summed over the units of some micro-batches."""

    loss: float
    units: int
    samples: int

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.loss + other.loss, self.units + other.units, self.samples + other.samples)

    def added_up(self, sum_over_ranks: Callable[[Tensor], object]) -> Totals:
        """After a sum over ranks, in place; in float64, so that the order of additions does not show."""
        values = torch.tensor([self.loss, self.units, self.samples], dtype=torch.float64)
        sum_over_ranks(values)
        loss, units, samples = values.tolist()
        return Totals(loss, int(units), int(samples))
