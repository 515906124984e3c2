"""Replicas agree in every step: their gradients are summed over the ring, and each makes the same update.

Runs on: ranks.
Takes:   a replica, the ring of its segment, an optimizer of what this rank holds.
Gives:   ``EveryStep``, an ``Agreement``; ``StepFacts``, the few numbers of a step that all ranks must know.

Weighting is exact: ranks sum losses and count units, and the division by the global number of units comes last, so that a
padded or short sample shifts no weight to its neighbours. A bucket of gradients is summed over the replicas as soon as all
micro-batches are in it, while backward still runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pipelines.config.platform import Communication
from pipelines.errors import RankFailedError
from pipelines.feed.batches import Batch
from pipelines.parallel.buckets import GradientAverage, gradient_of, squared_norm
from pipelines.parallel.replica.replica import Replica
from pipelines.parallel.ring import Ring
from pipelines.parallel.statistics import RunningStatistics
from pipelines.parallel.steps import See, StepOutcome, Totals
from pipelines.plan.places import Place


class EveryStep:
    """See ``Agreement``; built once per run on every rank."""

    def __init__(self, replica: Replica, ring: Ring, optimizer: torch.optim.Optimizer, communication: Communication, *,
                 gradient_wire: str, expected_units: int, clip_norm: float | None) -> None:
        """
        Args:
            gradient_wire: ``fp32``, ``fp16`` or ``bf16``: what the allreduce sends.
            expected_units: of a full global batch; scales backward so that narrow gradients neither over- nor underflow.
            clip_norm: bound of the norm of the whole model's gradient; None: none.
        """
        self.place = replica.place
        self._replica, self._ring, self._optimizer, self._clip_norm = replica, ring, optimizer, clip_norm
        self._scale = 1.0 / expected_units
        self._statistics = RunningStatistics(replica.held, ring)
        self._average = GradientAverage(replica.additions, ring, bucket_bytes=communication.bucket_bytes,
                                        gradient_wire=gradient_wire, overlap=communication.overlap and replica.hooks_tell)

    def step(self, micro_batches: list[Batch], learning_rate: float, epoch: int) -> StepOutcome:
        """See ``Agreement``.

        Raises:
            PeerLostError: another rank went away. RankFailedError: the segments do not see the same samples.
        """
        self._average.begin(self._replica.num_micro_batches(micro_batches))
        computed = self._replica.compute(micro_batches, self._scale, epoch)
        self._statistics.start()
        waited_from = time.perf_counter()
        facts = StepFacts(self.place, computed.own, disagreement=computed.disagreement)
        finish_facts = self._ring.start_sum(facts.values, "step.facts")
        self._average.finish()
        self._replica.join_copies()
        finish_facts()
        facts.add_squared_norm(squared_norm(map(gradient_of, self._replica.counted)))
        self._replica.sum_over_segments(facts.values)
        self._statistics.settle()
        facts.read()
        averaging_s = time.perf_counter() - waited_from if self.place.num_ranks > 1 else 0.0
        if facts.disagreement:
            raise RankFailedError("segments", "the first and the last one of a replica read different samples",
                                  "are the dataset's files the same on all hosts?")
        correction = 1.0 / (self._scale * max(facts.units, 1))
        gradient_norm = math.sqrt(facts.squared_norm) * correction
        finite = facts.first_bad_rank is None and math.isfinite(gradient_norm)
        if finite:
            self._update(correction, gradient_norm, learning_rate)
        return StepOutcome(
            loss=facts.loss, global_units=facts.units, global_samples=facts.samples, units=computed.own.units,
            samples=computed.own.samples, gradient_norm=gradient_norm, averaging_s=averaging_s,
            pipeline_wait_s=computed.waited_s, timeline=computed.timeline, began_s=computed.began_s, finite=finite,
            first_bad_rank=facts.first_bad_rank)

    def _update(self, correction: float, gradient_norm: float, learning_rate: float) -> None:
        """Turns the summed gradients into the mean's, clips them, and steps."""
        clipping = 1.0 if self._clip_norm is None else min(1.0, self._clip_norm / (gradient_norm + 1e-6))
        self._average.scale(clipping * correction)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()

    def evaluate(self, micro_batches: Iterable[Batch], num_micro_batches: int, see: See) -> Totals:
        return self._replica.evaluate(micro_batches, num_micro_batches, see).added_up(self.sum_over_ranks)

    def sum_over_ranks(self, values: Tensor) -> None:
        self._ring.sum(values, f"evaluation.{len(values)}")
        self._replica.sum_over_segments(values)

    @property
    def specs(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        return self._replica.specs

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        return self._replica.whole_state()


class StepFacts:
    """The numbers of a step that all ranks must know, as one small tensor to be summed over them, in float64."""

    def __init__(self, place: Place, own: Totals, *, disagreement: int = 0) -> None:
        """
        Args:
            own: of the loss that this rank computed.
            disagreement: adds up to 0 over the ranks of a replica that saw the same samples.
        """
        finite = math.isfinite(own.loss)
        # the last slots are the ranks': they tell everybody who met a loss that is not finite
        self.values = torch.zeros(5 + place.num_ranks, dtype=torch.float64)
        self.values[:4] = torch.tensor([own.loss if finite else 0.0, own.units, own.samples, disagreement],
                                       dtype=torch.float64)
        self.values[5 + place.rank] = 0.0 if finite else 1.0

    def add_squared_norm(self, share: Tensor) -> None:
        """This segment's share of the whole gradient's squared norm: after the sum over the ring, on which all have the same
        gradient, and before that over the segments."""
        self.values[4] += share.cpu()

    def read(self) -> None:
        """Takes the numbers out, once they are summed over all ranks."""
        self.loss_sum, units, samples, disagreement, self.squared_norm = self.values[:5].tolist()
        self.units, self.samples, self.disagreement = int(units), int(samples), int(disagreement)
        bad_ranks = self.values[5:].nonzero().flatten().tolist()
        self.first_bad_rank: int | None = bad_ranks[0] if bad_ranks else None

    @property
    def loss(self) -> float:
        """Mean over the global batch's units."""
        return self.loss_sum / max(self.units, 1)
