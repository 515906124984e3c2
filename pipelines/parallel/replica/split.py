"""A replica of several ranks (layer split): they hold consecutive parts of the model; micro-batches flow through them.

Runs on: ranks.
Takes:   a layered model, where it is cut, a schedule, this replica's micro-batches.
Gives:   a ``Replica``: the gradient of one process for every parameter of this rank's parts.

The schedules are torch's. Shapes between parts are found before the model is cut, so the schedules need not ask each
other with pickled objects. Every micro-batch has the same number of samples: the last one is padded with samples of weight 0.

A parameter that layers of several segments share (tied embeddings) has a copy on each of them. Its gradient is summed
over replicas, then between the holders in the order of the segments: the copies stay equal bit by bit.

Source: Huang et al. 2019 (GPipe); Narayanan et al. 2019, 2021 (1F1B, interleaved); Qi et al. 2024 (zero bubble);
torch.distributed.pipelining.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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

from pipelines.feed.batches import Batch
from pipelines.models.layered import LayeredModel, bits_of, evaluation_mode, names_of
from pipelines.parallel.buckets import gradient_of
from pipelines.parallel.replica.compiled import compiled_module
from pipelines.parallel.replica.replica import Computed
from pipelines.parallel.replica.torch_stages import Part, TimedStage, Timeline, as_boundary, shapes_between
from pipelines.parallel.segments import SegmentGroup, peer_errors
from pipelines.parallel.steps import See, Totals
from pipelines.plan.split_plan import SplitPlan
from pipelines.tasks.task import Task

ONE_PART_CLASSES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
SEVERAL_PARTS_CLASSES = {"interleaved_1f1b": ScheduleInterleaved1F1B, "zero_bubble": ScheduleInterleavedZeroBubble}


class SplitReplica:
    """See ``Replica``; built once per run on every rank."""

    def __init__(self, model: LayeredModel, task: Task, plan: SplitPlan, group: SegmentGroup, *, device: torch.device,
                 precision: str, compiled: bool = False) -> None:
        """
        Args:
            model: the same on every rank; only this rank's parts, which are filled, go to the device and are kept.
        Raises:
            ConfigError: a layer's shapes depend on the data.
        """
        shapes = shapes_between(model, task.inputs_and_targets(task.example(plan.micro_batch_samples))[0], precision)
        place = self.place = group.place
        self._group, self._plan, self._task, self._device = group, plan, task, device
        self._scale, self._current = 1.0, model.current
        self._epoch = 0  # of the step that runs
        self._ids_M: Sequence[Tensor] = ()  # sample ids of each of the micro-batches that run
        self._see: See | None = None  # who looks at an evaluation's outputs
        names, ranges, own_parts = list(model.layers), plan.ranges, plan.parts_of(place.segment_index)
        self._holds_inputs, self._holds_loss = 0 in own_parts, len(plan.counts) - 1 in own_parts
        self._owners = _owners(model, ranges, place.num_segments)
        self.specs = model.specs()
        holders = _holders_of_tied(model, ranges, place.num_segments)
        parts = {i: LayeredModel((name, model.layers[name]) for name in names[ranges[i].start : ranges[i].stop])
                 for i in own_parts}
        self.held = nn.ModuleList(parts.values()).to(device)
        self._own = {name: value for part in parts.values() for name, value in part.named_state()}
        self._timeline = Timeline()
        stages = [self._stage(i, parts[i], shapes[ranges[i].start], shapes[ranges[i].stop], precision, compiled)
                  for i in own_parts]
        self._schedule = self._make_schedule(stages)
        # of several parts of this rank that share a parameter, each one's backward adds to its gradient
        uses = Counter(p for part in parts.values() for p in part.parameters() if p.requires_grad)
        self.additions = dict(reversed(uses.items()))
        self.hooks_tell = not plan.weights_apart
        self._tied = {p: holders[name] for part in parts.values() for name, p in part.named_parameters()
                      if name in holders and p.requires_grad}
        copies = {p for p, segments in self._tied.items() if place.segment_index != segments[0]}
        self.counted = [p for p in uses if p not in copies]

    def _stage(self, index: int, layers: LayeredModel, takes: list[Tensor], gives: list[Tensor], precision: str,
               compiled: bool) -> TimedStage:
        part: nn.Module = Part(layers, precision, self._device, weights_apart=self._plan.weights_apart)
        if compiled:
            part = compiled_module(part, self._device)
        stage = TimedStage(part, index, len(self._plan.counts), self._device,
                            input_args=tuple(as_boundary(t, self._device, first=index == 0) for t in takes),
                            output_args=tuple(as_boundary(t, self._device, first=False) for t in gives))
        stage.timeline, stage.begin = self._timeline, self._begin
        return stage

    def _make_schedule(self, stages: list[TimedStage]) -> Any:
        options: dict[str, Any] = {"n_microbatches": self._plan.micro_batches, "loss_fn": self._timed_loss, "scale_grads": False}
        if self._plan.schedule in ONE_PART_CLASSES:
            return ONE_PART_CLASSES[self._plan.schedule](stages[0], **options)
        return SEVERAL_PARTS_CLASSES[self._plan.schedule](list(stages), **options)

    def num_micro_batches(self, micro_batches: list[Batch]) -> int:
        return self._plan.micro_batches

    def compute(self, micro_batches: list[Batch], scale: float, epoch: int) -> Computed:
        """See ``Replica``.

        Raises:
            PeerLostError: another segment went away.
        """
        self._scale, self._epoch = scale, epoch
        self._timeline.restart()
        began = time.perf_counter()
        own, disagreement = self._flow(self._joined(micro_batches), self._schedule.step)
        self._current.leave()
        waited_s = max(0.0, time.perf_counter() - began - self._timeline.busy_s)
        return Computed(own, waited_s, self._timeline.work, self._timeline.began_s, disagreement)

    def join_copies(self) -> None:
        for parameter, segments in self._tied.items():
            self._group.sum_between(gradient_of(parameter), segments)

    def sum_over_segments(self, values: Tensor) -> None:
        self._group.sum(values)

    @torch.no_grad()
    def evaluate(self, micro_batches: Iterable[Batch], num_micro_batches: int, see: See) -> Totals:
        """See ``Replica``; as many micro-batches at a time as a step has."""
        stream, total = iter(micro_batches), Totals(0.0, 0, 0)
        self._scale, self._see = 1.0, see
        with evaluation_mode(self.held):
            for _ in range(0, num_micro_batches, self._plan.micro_batches):
                self._timeline.restart()
                some = list(islice(stream, self._plan.micro_batches))
                own, _ = self._flow(self._joined(some) if some else None, self._schedule.eval)
                total += own
        self._see = None
        return total

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        """See ``Replica``; rank 0 receives from the other segments, one tensor at a time, as bytes: of any type."""
        place = self.place
        if place.replica_index:
            return
        for name, (shape, dtype) in self.specs.items():
            owner = self._owners[name]
            if owner == place.segment_index:
                value = self._own[name].detach()
                if owner == 0:
                    yield name, value.cpu()
                else:
                    self._group.send(bits_of(value), 0)
            elif place.segment_index == 0:
                value = torch.empty(shape, dtype=dtype, device=self._device)
                self._group.receive(bits_of(value), owner)
                yield name, value.cpu()

    def _joined(self, micro_batches: list[Batch]) -> Batch:
        """As one, padded to what the schedule runs."""
        return Batch.joined(micro_batches).padded(self._plan.micro_batches * self._plan.micro_batch_samples)

    def _begin(self, micro_batch: int) -> None:
        if self._see is None:  # else it is an evaluation's
            self._current.at(self._epoch, self._ids_M[micro_batch])

    def _flow(self, batch: Batch | None, run: Callable[..., Any]) -> tuple[Totals, int]:
        """All micro-batches through the schedule: this rank's loss, and a number that adds up to 0 over the segments
        when the first and the last of them had the same samples."""
        losses: list[Tensor] = []
        arguments: list[Tensor] = []
        targets, fingerprint = None, 0
        if batch is not None:
            self._ids_M = batch.sample_ids_B.split(self._plan.micro_batch_samples)
        if batch is not None and (self._holds_inputs or self._holds_loss):
            inputs, targets = self._task.inputs_and_targets(batch)
            arguments = [inputs] if self._holds_inputs else []
            fingerprint = _fingerprint(batch) * (self._holds_inputs - self._holds_loss)
        with peer_errors():
            run(*arguments, target=targets if self._holds_loss else None, losses=losses, return_outputs=False)
        if batch is None or not self._holds_loss or targets is None:
            return Totals(0.0, 0, 0), fingerprint
        loss = sum(loss.item() for loss in losses) / self._scale
        return Totals(loss, self._task.num_counted(targets), batch.samples), fingerprint

    def _timed_loss(self, output: Any, targets: Tensor) -> Tensor:
        done = sum(work.kind == "loss" for work in self._timeline.work)
        with self._timeline.working("loss", len(self._plan.counts) - 1, done):
            if self._see is not None:
                self._see(output, targets, self._ids_M[done])
            return self._task.loss_sum(output, targets) * self._scale


def _segment_of_layers(model: LayeredModel, ranges: list[range], num_segments: int) -> dict[str, int]:
    layer_names = list(model.layers)
    return {layer_names[i]: part % num_segments for part, layers in enumerate(ranges) for i in layers}


def _owners(model: LayeredModel, ranges: list[range], num_segments: int) -> dict[str, int]:
    """The segment that holds each parameter and buffer, the first one of those that share it."""
    segment_of = _segment_of_layers(model, ranges, num_segments)
    return {name: segment_of[name.split(".")[0]] for name in model.specs()}


def _holders_of_tied(model: LayeredModel, ranges: list[range], num_segments: int) -> dict[str, list[int]]:
    """The segments that hold a parameter, by each of its names, where there are several."""
    segment_of = _segment_of_layers(model, ranges, num_segments)
    found = {}
    for names in names_of(model.named_parameters(remove_duplicate=False)).values():
        segments = sorted({segment_of[name.split(".")[0]] for name in names})
        if len(segments) > 1:
            found.update(dict.fromkeys(names, segments))
    return found


def _fingerprint(batch: Batch) -> int:
    """A number below 2^40 that differs when a sample does, or the sum of its bytes: a shard's were checked as it was read."""
    of_sample_B = batch.sample_ids_B * 1_000_003
    for values in batch.fields.values():
        of_sample_B = of_sample_B + bits_of(values).view(len(batch), -1).sum(1)
    places_B = torch.arange(1, len(batch) + 1, device=of_sample_B.device)
    return int((of_sample_B * (places_B * 2654435761 % 1048573)).sum().item()) % 2**40
