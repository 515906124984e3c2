"""Data parallelism: every rank holds the whole model; gradients are summed over the ranks.

Runs on: ranks.
Takes:   a layered model, its loss, and this replica's micro-batches of a step.
Gives:   in every parameter's ``grad`` the gradient of the global batch's mean loss per token, equal on all ranks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from pipelines.models.layered import LayeredModel, evaluation_mode
from pipelines.parallel.buckets import GradientAverage, StepFacts, squared_norm
from pipelines.parallel.ring import Ring
from pipelines.parallel.steps import MicroBatch, StepOutcome, Totals, state_of

# (tokens_BT1, lengths_B, weights_B) -> (loss summed over tokens, tokens counted)
LossSum = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, int]]


class DataParallel:
    """A ``Strategy`` for replicas of one rank; built once per run on every rank."""

    def __init__(self, model: LayeredModel, loss_sum: LossSum, ring: Ring, *, bucket_bytes: int, overlap: bool,
                 gradient_wire: str, expected_tokens: int) -> None:
        """
        Args:
            loss_sum: differentiable sum of the loss over a micro-batch, and how many tokens it counted.
            gradient_wire: ``fp32``, ``fp16`` or ``bf16``: what the allreduce sends.
            expected_tokens: of a full global batch; scales backward so that narrow gradients neither over- nor underflow.
        """
        self._model, self._loss_sum, self._ring, self._scale = model, loss_sum, ring, 1.0 / expected_tokens
        trained = [p for p in dict.fromkeys(model.parameters()) if p.requires_grad]
        self._average = GradientAverage(dict.fromkeys(trained[::-1], 1), ring, bucket_bytes=bucket_bytes,
                                        gradient_wire=gradient_wire, overlap=overlap)
        self._correction = 1.0

    @property
    def optimized(self) -> nn.Module:
        return self._model

    def run_step(self, micro_batches: list[MicroBatch]) -> StepOutcome:
        """See ``Strategy``.

        Raises:
            PeerLostError: another rank went away.
        """
        self._average.begin(len(micro_batches))
        loss_total, tokens, samples = 0.0, 0, 0
        for micro_batch in micro_batches:
            loss_sum, counted = self._loss_sum(*micro_batch)
            (loss_sum * self._scale).backward()
            loss_total += loss_sum.item()
            tokens += counted
            samples += int((micro_batch[2] > 0).sum())
        waited_from = time.perf_counter()
        facts = StepFacts(self._ring.place, Totals(loss_total, tokens, samples))
        finish_facts = self._ring.start_sum(facts.values, "step.facts")
        self._average.finish()
        finish_facts()
        facts.read()
        averaging_s = time.perf_counter() - waited_from if self._ring.place.num_ranks > 1 else 0.0
        self._correction = 1.0 / (self._scale * max(facts.tokens, 1))
        gradient_norm = math.sqrt(squared_norm(self._average.gradients()).item()) * self._correction
        return StepOutcome(
            loss=facts.loss, global_tokens=facts.tokens, global_samples=facts.samples, tokens=tokens, samples=samples,
            gradient_norm=gradient_norm, averaging_s=averaging_s,
            finite=facts.first_bad_rank is None and math.isfinite(gradient_norm), first_bad_rank=facts.first_bad_rank)

    def scale_gradients(self, factor: float) -> None:
        self._average.scale(factor * self._correction)

    @torch.no_grad()
    def evaluate(self, micro_batches: Iterable[MicroBatch], num_micro_batches: int) -> Totals:
        loss_total, tokens, samples = 0.0, 0, 0
        with evaluation_mode(self._model):
            for micro_batch in micro_batches:
                loss, counted = self._loss_sum(*micro_batch)
                loss_total += loss.item()
                tokens += counted
                samples += int((micro_batch[2] > 0).sum())
        return Totals(loss_total, tokens, samples).added_up(
            lambda values: self._ring.sum(values, "evaluation.totals"))

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        return state_of(self._model) if self._ring.place.rank == 0 else iter(())
