"""What a training step takes and gives, the same for every way of parallelism.

Runs on: ranks.
Takes:   this replica's micro-batches.
Gives:   ``StepOutcome``; ``Strategy``, which ``data_parallel`` and ``layer_split`` are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from pipelines.models.layered import LayeredModel

MicroBatch = tuple[Tensor, Tensor, Tensor]  # (tokens_BT1, lengths_B, weights_B) on the training device


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

    loss: float  # mean over the global batch's tokens
    global_tokens: int
    global_samples: int
    tokens: int  # whose loss this rank computed: summed over the ranks, the global ones
    samples: int  # as ``tokens``
    gradient_norm: float  # of the whole model, before clipping
    averaging_s: float  # time in which this rank only waited for gradients of other replicas
    finite: bool
    first_bad_rank: int | None  # lowest rank whose own loss is not finite
    pipeline_wait_s: float = 0.0  # time in which this rank only waited for other segments
    timeline: list[Work] = field(default_factory=list)  # of a split model
    began_s: float = 0.0  # Unix time that the timeline counts from


@dataclass(frozen=True)
class Totals:
    """Loss in nats, summed over the tokens of some micro-batches."""

    loss: float
    tokens: int
    samples: int

    def added_up(self, *sums: Callable[[Tensor], object]) -> Totals:
        """After sums over ranks, each in place; in float64, so that the order of additions does not show."""
        values = torch.tensor([self.loss, self.tokens, self.samples], dtype=torch.float64)
        for sum_over_ranks in sums:
            sum_over_ranks(values)
        loss, tokens, samples = values.tolist()
        return Totals(loss, int(tokens), int(samples))


class Strategy(Protocol):
    """How steps are computed over the ranks."""

    @property
    def optimized(self) -> torch.nn.Module:
        """What this rank's optimizer updates."""

    def run_step(self, micro_batches: list[MicroBatch]) -> StepOutcome:
        """Forward and backward over the micro-batches; afterwards every ``grad`` holds the global sum.

        ``micro_batches`` is empty on a rank that needs neither tokens nor targets.
        """

    def scale_gradients(self, factor: float) -> None:
        """Turns the summed gradients into the mean's, times ``factor`` (the clipping); once per step."""

    def evaluate(self, micro_batches: Iterable[MicroBatch], num_micro_batches: int) -> Totals:
        """Forward only, in evaluation mode; the totals of all ranks together.

        ``num_micro_batches`` is how many this replica has, also where ``micro_batches`` is empty.
        """

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        """On rank 0, every parameter of the model on the CPU, one at a time, in the model's order; elsewhere nothing.

        Every rank of the first replica has to run through it at the same time.
        """


def state_of(model: LayeredModel) -> Iterator[tuple[str, Tensor]]:
    """A whole model's parameters, each tied one once."""
    for name, value in model.unique_state().items():
        yield name, value.cpu()
