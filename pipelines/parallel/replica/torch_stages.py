"""The parts of a split model as torch's pipeline stages, and what they did when.

Runs on: ranks.
Takes:   consecutive layers; one micro-batch whose shapes all others have.
Gives:   ``TimedStage``, which notes its work in a ``Timeline``; the shapes of what travels between layers.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensorMode,
)
from torch.distributed.pipelining import PipelineStage

from pipelines.errors import ConfigError, SparkringError
from pipelines.models.layered import LayeredModel
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

    def __init__(self, layers: LayeredModel, precision: str, device: torch.device, *, weights_apart: bool = False) -> None:
        """``weights_apart``: of a schedule that detaches what a part returned, which torch does of no view."""
        super().__init__()
        self.layers, self._precision, self._device_type, self._no_views = layers, precision, device.type, weights_apart

    def forward(self, *tensors: Tensor) -> Any:
        with torch.autocast(self._device_type, dtype=torch.bfloat16, enabled=self._precision == "bf16"):
            result = self.layers(tensors[0] if len(tensors) == 1 else tensors)
        if not self._no_views:
            return result
        return tuple(map(_no_view, result)) if isinstance(result, tuple) else _no_view(result)


def _no_view(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor._is_view() else tensor


class TimedStage(PipelineStage):
    """A stage that notes when it computes, and says before it which micro-batch is the current one."""

    timeline: Timeline
    begin: Callable[[int], None]

    def forward_one_chunk(self, fwd_chunk_id: int, *arguments: Any, **options: Any) -> Any:
        self.begin(fwd_chunk_id)
        with self.timeline.working("forward", self.stage_index, fwd_chunk_id):
            return super().forward_one_chunk(fwd_chunk_id, *arguments, **options)

    def backward_one_chunk(self, bwd_chunk_id: int, *arguments: Any, **options: Any) -> Any:
        self.begin(bwd_chunk_id)
        with self.timeline.working("backward", self.stage_index, bwd_chunk_id):
            return super().backward_one_chunk(bwd_chunk_id, *arguments, **options)

    def backward_weight_one_chunk(self, bwd_chunk_id: int, *arguments: Any, **options: Any) -> Any:
        self.begin(bwd_chunk_id)
        with self.timeline.working("weights", self.stage_index, bwd_chunk_id):
            return super().backward_weight_one_chunk(bwd_chunk_id, *arguments, **options)


def shapes_between(model: LayeredModel, inputs: Tensor, precision: str) -> list[list[Tensor]]:
    """What enters each layer, and what leaves the last, as tensors without memory.

    Found with torch's fake tensors, which know only shape, type and device: no memory and no work is spent, and a model that
    is only sketched needs no weights.

    Raises:
        ConfigError: a layer's shapes depend on the data, so that ranks cannot know beforehand what to receive.
    """
    found: list[list[Tensor]] = []
    fake = FakeTensorMode(allow_non_fake_inputs=True)  # of a constant that a layer holds as a plain attribute
    value: Any = fake.from_tensor(inputs)
    with fake, torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        for name, layer in model.layers.items():
            found.append(list(value) if isinstance(value, tuple) else [value])
            try:
                value = _faked(layer, fake)(value)
            except (DataDependentOutputException, DynamicOutputShapeException) as error:
                raise _not_known(name, f"its shapes depend on the data ({error})") from error
            except RuntimeError as error:
                raise _not_known(name, f"torch cannot tell its shapes without data ({str(error).splitlines()[0]})") from error
    found.append(list(value) if isinstance(value, tuple) else [value])
    return [[torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta") for t in tensors] for tensors in found]


def _faked(layer: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """A copy whose tensors are fake, on the CPU, whether the layer has weights or is only sketched.

    ``torch.func.functional_call`` would not do: it leaves its tensors behind in a GRU.
    """
    known: dict[int, Any] = {id(p): nn.Parameter(torch.empty_like(p, device="cpu"), requires_grad=p.requires_grad)
                             for p in layer.parameters()}
    known |= {id(buffer): torch.empty_like(buffer, device="cpu") for buffer in layer.buffers()}
    with FakeCopyMode(fake):
        return copy.deepcopy(layer, known)


def _not_known(layer: str, problem: str) -> ConfigError:
    return ConfigError(SparkringError(f"model.factory, layer {layer}", f"{problem}, and ranks of a split model have to know "
                                      "beforehand what they receive", "set layout.num_segments: 1"))


def as_boundary(example: Tensor, device: torch.device, *, first: bool) -> Tensor:
    """A tensor without memory that says what travels: floating-point values bring a gradient back."""
    like = torch.empty_like(example, device="meta")
    return like.requires_grad_(like.is_floating_point() and not first)
