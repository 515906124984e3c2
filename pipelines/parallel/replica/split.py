"""Layer split: a replica's ranks hold consecutive parts of the model; micro-batches flow through them.

Runs on: ranks.
Takes:   a layered model, where it is cut, a schedule, this replica's micro-batches.
Gives:   a ``Strategy``: the gradient of one process for every parameter of this rank's parts; with several replicas
         (hybrid) each segment's gradients are summed over its copies.

The schedules are torch's. Shapes between parts are found before the model is cut, so the schedules need not ask each
other with pickled objects. Every micro-batch has the same number of samples: the last one
is padded with samples of weight 0. A bucket of gradients is summed over the replicas once all micro-batches are in it.

A parameter that layers of several segments share (tied embeddings) has a copy on each of them. Its gradient is summed
over replicas, then between the holders in the order of the segments: the copies stay equal bit by bit.

Source: Huang et al. 2019 (GPipe); Narayanan et al. 2019, 2021 (1F1B, interleaved); Qi et al. 2024 (zero bubble);
torch.distributed.pipelining.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import (
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from pipelines.errors import RankFailedError
from pipelines.models.layered import LayeredModel, evaluation_mode
from pipelines.parallel.buckets import GradientAverage, StepFacts, gradient_of, squared_norm
from pipelines.parallel.replica.torch_stages import Part, TimedStage, Timeline, as_boundary
from pipelines.parallel.ring import Ring
from pipelines.parallel.segments import SegmentGroup, peer_errors
from pipelines.parallel.steps import MicroBatch, StepOutcome, Totals
from pipelines.plan.split_plan import part_ranges, parts_of_segment

SINGLE_PART = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
SEVERAL_PARTS = {"interleaved_1f1b": ScheduleInterleaved1F1B, "zero_bubble": ScheduleInterleavedZeroBubble}


@dataclass(frozen=True)
class SplitPlan:
    """How a replica's ranks run their parts. Part i is on segment ``i % num_segments``."""

    schedule: str
    counts: tuple[int, ...]  # layers of each part
    micro_batches: int  # of a step
    micro_batch_samples: int


@dataclass(frozen=True)
class SplitLoss:
    """What the first part takes, and how the last part's output becomes a loss."""

    inputs_and_targets: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # of a micro-batch
    loss_sum: Callable[[Any, Tensor], Tensor]  # (output, targets) -> sum over what counts, differentiable
    counted: Callable[[Tensor], int]  # targets -> how many tokens the sum is over


class LayerSplit:
    """A ``Strategy`` for replicas of several ranks; built once per run on every rank."""

    def __init__(self, model: LayeredModel, loss: SplitLoss, plan: SplitPlan, shapes: Sequence[list[Tensor]], ring: Ring,
                 group: SegmentGroup, *, device: torch.device, precision: str, bucket_bytes: int, overlap: bool,
                 gradient_wire: str, expected_tokens: int, compiled: bool = False) -> None:
        """
        Args:
            model: the same on every rank; only this rank's parts, which are filled, go to the device and are kept.
            shapes: see ``shapes_between``, of a micro-batch of ``plan.micro_batch_samples`` samples.
            expected_tokens: of a full global batch; scales backward so that narrow gradients neither over- nor underflow.
        """
        place = ring.place
        self._ring, self._group, self._plan, self._loss = ring, group, plan, loss
        self._scale, self._correction = 1.0 / expected_tokens, 1.0
        names = list(model.layers)
        own_parts = parts_of_segment(len(plan.counts), place.segment_index, place.num_segments)
        self._holds_inputs, self._holds_loss = 0 in own_parts, len(plan.counts) - 1 in own_parts
        ranges = part_ranges(plan.counts)
        self._owners = _owners(model, ranges, place.num_segments)
        self._specs = model.specs()
        holders = _holders_of_tied(model, ranges, place.num_segments)
        parts = {i: LayeredModel((name, model.layers[name]) for name in names[ranges[i].start : ranges[i].stop])
                 for i in own_parts}
        self._parts = nn.ModuleList(parts.values())
        self._parts.to(device)
        self._device = device
        self._own = {name: p for part in parts.values() for name, p in part.named_parameters()}
        self._timeline = Timeline()
        stages = [self._stage(i, parts[i], shapes[ranges[i].start], shapes[ranges[i].stop], precision, compiled)
                  for i in own_parts]
        self._schedule = self._make_schedule(stages)
        # of several parts of this rank that share a parameter, each one's backward adds to its gradient
        uses = Counter(p for part in parts.values() for p in part.parameters() if p.requires_grad)
        self._tied = {p: holders[name] for name, p in self._own.items() if name in holders and p.requires_grad}
        # zero bubble adds weights' gradients by itself, without autograd's hooks
        self._average = GradientAverage(dict(reversed(uses.items())), ring, bucket_bytes=bucket_bytes,
                                        gradient_wire=gradient_wire, overlap=overlap and plan.schedule != "zero_bubble")
        # of copies of a tied parameter, the first one counts in the norm of the whole model
        copies = {p for p, segments in self._tied.items() if place.segment_index != segments[0]}
        self._counted = [p for p in uses if p not in copies]

    def _stage(self, index: int, layers: LayeredModel, takes: list[Tensor], gives: list[Tensor], precision: str,
               compiled: bool) -> TimedStage:
        part: nn.Module = Part(layers, precision, self._device)
        if compiled:
            part = torch.compile(part)  # type: ignore[assignment]
        stage = TimedStage(part, index, len(self._plan.counts), self._device,
                            input_args=tuple(as_boundary(t, self._device, first=index == 0) for t in takes),
                            output_args=tuple(as_boundary(t, self._device, first=False) for t in gives))
        stage.timeline = self._timeline
        return stage

    def _make_schedule(self, stages: list[TimedStage]) -> Any:
        options: dict[str, Any] = {"n_microbatches": self._plan.micro_batches, "loss_fn": self._timed_loss, "scale_grads": False}
        if self._plan.schedule in SINGLE_PART:
            return SINGLE_PART[self._plan.schedule](stages[0], **options)
        return SEVERAL_PARTS[self._plan.schedule](list(stages), **options)

    @property
    def optimized(self) -> nn.Module:
        return self._parts

    def run_step(self, micro_batches: list[MicroBatch]) -> StepOutcome:
        """See ``Strategy``.

        Raises:
            PeerLostError: another rank went away. RankFailedError: the segments do not see the same samples.
        """
        self._average.begin(self._plan.micro_batches)
        self._timeline.restart()
        began = time.perf_counter()
        totals, fingerprint = self._flow(micro_batches, self._schedule.step)
        pipelined = time.perf_counter()
        facts = StepFacts(self._ring.place, totals, disagreement=fingerprint)
        finish_facts = self._ring.start_sum(facts.values, "step.facts")
        self._average.finish()
        for parameter, segments in self._tied.items():
            self._group.sum_between(gradient_of(parameter), segments)
        finish_facts()
        facts.add_squared_norm(squared_norm(map(gradient_of, self._counted)))
        self._group.sum(facts.values)
        facts.read()
        averaging_s = time.perf_counter() - pipelined
        if facts.disagreement:
            raise RankFailedError("segments", "the first and the last one of a replica read different samples",
                                  "are the dataset's files the same on all hosts?")
        self._correction = 1.0 / (self._scale * max(facts.tokens, 1))
        gradient_norm = math.sqrt(facts.squared_norm) * self._correction
        return StepOutcome(
            loss=facts.loss, global_tokens=facts.tokens, global_samples=facts.samples, tokens=totals.tokens,
            samples=totals.samples, gradient_norm=gradient_norm, averaging_s=averaging_s,
            pipeline_wait_s=max(0.0, pipelined - began - self._timeline.busy_s),
            timeline=self._timeline.work, began_s=self._timeline.began_s,
            finite=facts.first_bad_rank is None and math.isfinite(gradient_norm), first_bad_rank=facts.first_bad_rank)

    def scale_gradients(self, factor: float) -> None:
        self._average.scale(factor * self._correction)

    @torch.no_grad()
    def evaluate(self, micro_batches: Iterable[MicroBatch], num_micro_batches: int) -> Totals:
        """See ``Strategy``; as many micro-batches at a time as a step has."""
        stream = iter(micro_batches)
        loss, tokens, samples = 0.0, 0, 0
        with evaluation_mode(self._parts):
            for _ in range(0, num_micro_batches, self._plan.micro_batches):
                self._timeline.restart()
                totals, _ = self._flow(list(islice(stream, self._plan.micro_batches)), self._schedule.eval)
                loss, tokens, samples = loss + totals.loss, tokens + totals.tokens, samples + totals.samples
        return Totals(loss, tokens, samples).added_up(
            lambda values: self._ring.sum(values, "evaluation.totals"), self._group.sum)

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        """See ``Strategy``; rank 0 receives from the other segments, one parameter at a time."""
        place = self._ring.place
        if place.replica_index:
            return
        for name, (shape, dtype) in self._specs.items():
            owner = self._owners[name]
            if owner == place.segment_index:
                value = self._own[name].detach()
                if owner == 0:
                    yield name, value.cpu()
                else:
                    self._group.send(value, 0)
            elif place.segment_index == 0:
                yield name, self._group.receive(torch.empty(shape, dtype=dtype, device=self._device), owner).cpu()

    def _flow(self, micro_batches: list[MicroBatch], run: Callable[..., Any]) -> tuple[Totals, int]:
        """All micro-batches through the schedule: this rank's loss, and a number that adds up to 0 over the segments
        when the first and the last of them had the same tokens."""
        losses: list[Tensor] = []
        arguments: list[Tensor] = []
        targets, fingerprint = None, 0
        if self._holds_inputs or self._holds_loss:
            tokens, lengths, weights = self._padded(micro_batches)
            inputs, targets = self._loss.inputs_and_targets(tokens, lengths, weights)
            arguments = [inputs] if self._holds_inputs else []
            fingerprint = _fingerprint(tokens) * (self._holds_inputs - self._holds_loss)
        with peer_errors():
            run(*arguments, target=targets if self._holds_loss else None, losses=losses, return_outputs=False)
        if not self._holds_loss or targets is None:
            return Totals(0.0, 0, 0), fingerprint
        loss = sum(loss.item() for loss in losses) / self._scale
        return Totals(loss, self._loss.counted(targets), int((weights > 0).sum())), fingerprint

    def _padded(self, micro_batches: list[MicroBatch]) -> MicroBatch:
        """The micro-batches as one, with samples of weight 0 up to the size that the schedule is made for."""
        rows = self._plan.micro_batches * self._plan.micro_batch_samples
        columns = [torch.cat(column) for column in zip(*micro_batches, strict=True)]
        missing = rows - len(columns[0])
        if missing:
            columns = [torch.cat([column, column[:1].expand(missing, *column.shape[1:])]) for column in columns]
            columns[2] = columns[2].clone()
            columns[2][rows - missing :] = 0.0
        tokens, lengths, weights = columns
        return tokens, lengths, weights

    def _timed_loss(self, output: Any, targets: Tensor) -> Tensor:
        done = sum(work.kind == "loss" for work in self._timeline.work)
        with self._timeline.working("loss", len(self._plan.counts) - 1, done):
            return self._loss.loss_sum(output, targets) * self._scale


def _segment_of_layers(model: LayeredModel, ranges: list[range], num_segments: int) -> dict[str, int]:
    layer_names = list(model.layers)
    return {layer_names[i]: part % num_segments for part, layers in enumerate(ranges) for i in layers}


def _owners(model: LayeredModel, ranges: list[range], num_segments: int) -> dict[str, int]:
    """The segment that holds each parameter, the first one of those that share it."""
    segment_of = _segment_of_layers(model, ranges, num_segments)
    return {name: segment_of[name.split(".")[0]] for name, _ in model.named_parameters()}


def _holders_of_tied(model: LayeredModel, ranges: list[range], num_segments: int) -> dict[str, list[int]]:
    """The segments that hold a parameter, by each of its names, where there are several."""
    segment_of = _segment_of_layers(model, ranges, num_segments)
    found = {}
    for names in model.names_of_parameters().values():
        segments = sorted({segment_of[name.split(".")[0]] for name in names})
        if len(segments) > 1:
            found.update(dict.fromkeys(names, segments))
    return found


def _fingerprint(tokens: Tensor) -> int:
    """A number below 2^40 that differs when a token does."""
    places = torch.arange(1, tokens.numel() + 1, device=tokens.device, dtype=torch.int64)
    return int((tokens.reshape(-1).long() * (places * 2654435761 % 1048573)).sum().item()) % 2**40
