"""The parts of a split model as torch's pipeline stages, and what they did when.

Runs on: ranks.
Takes:   consecutive layers; one micro-batch whose shapes all others have.
Gives:   ``TimedStage``, which notes its work in a ``Timeline``; the shapes of what travels between layers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage

from pipelines.models.layered import LayeredModel, runnable
from pipelines.parallel.steps import Work


class Timeline:
    """What this rank computed in a step, and for how long."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.work: list[Work] = []
        self.began_s, self._began = time.time(), time.perf_counter()

    @contextmanager
    def working(self, kind: str, part: int, micro_batch: int) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.work.append(Work(kind, part, micro_batch, begin - self._began, time.perf_counter() - self._began))

    @property
    def busy_s(self) -> float:
        return sum(work.end_s - work.begin_s for work in self.work)


class Part(nn.Module):
    """Consecutive layers behind the signature that torch's stages call: one argument per tensor."""

    def __init__(self, layers: LayeredModel, precision: str, device: torch.device) -> None:
        super().__init__()
        self.layers, self._precision, self._device_type = layers, precision, device.type

    def forward(self, *tensors: Tensor) -> Any:
        with torch.autocast(self._device_type, dtype=torch.bfloat16, enabled=self._precision == "bf16"):
            return self.layers(tensors[0] if len(tensors) == 1 else tensors)


class TimedStage(PipelineStage):
    """A stage that notes when it computes."""

    timeline: Timeline

    def forward_one_chunk(self, fwd_chunk_id: int, *arguments: Any, **options: Any) -> Any:
        with self.timeline.working("forward", self.stage_index, fwd_chunk_id):
            return super().forward_one_chunk(fwd_chunk_id, *arguments, **options)

    def backward_one_chunk(self, bwd_chunk_id: int, *arguments: Any, **options: Any) -> Any:
        with self.timeline.working("backward", self.stage_index, bwd_chunk_id):
            return super().backward_one_chunk(bwd_chunk_id, *arguments, **options)

    def backward_weight_one_chunk(self, bwd_chunk_id: int, *arguments: Any, **options: Any) -> Any:
        with self.timeline.working("weights", self.stage_index, bwd_chunk_id):
            return super().backward_weight_one_chunk(bwd_chunk_id, *arguments, **options)


def shapes_between(model: LayeredModel, inputs: Tensor, precision: str) -> list[list[Tensor]]:
    """What enters each layer, and what leaves the last: run once without gradients, one layer after the other."""
    found: list[list[Tensor]] = []
    value: Any = inputs
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        for layer in model.layers.values():
            found.append(list(value) if isinstance(value, tuple) else [value])
            value = runnable(layer)(value)
    return [*found, list(value) if isinstance(value, tuple) else [value]]


def as_boundary(example: Tensor, device: torch.device, *, first: bool) -> Tensor:
    """A tensor without memory that says what travels: floating-point values bring a gradient back."""
    like = torch.empty_like(example, device="meta")
    return like.requires_grad_(like.is_floating_point() and not first)
