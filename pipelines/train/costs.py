"""What each layer of a model costs on this machine, and where it is cut by that.

Runs on: ranks.
Takes:   a layered model, or the sketch of one, and one micro-batch.
Gives:   seconds of forward and backward per layer; the number of layers of each part, the same on all ranks.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipelines.feed.batches import Batch
from pipelines.models.layered import LayeredModel, runnable
from pipelines.parallel.peers import Peers
from pipelines.plan.layer_costs import keep_costs
from pipelines.plan.run_plan import RunPlan
from pipelines.plan.split_plan import SplitPlan, cut_by_cost
from pipelines.tasks.task import Task

REPEATS = 3


def measured_split(plan: RunPlan, task: Task, model: LayeredModel, precision: str, peers: Peers, device: torch.device
                   ) -> SplitPlan:
    """The planned split, cut by what rank 0 finds a layer to cost: into as many parts, and the same on all ranks.

    Costs are kept in the lake for the plans of later runs.
    """
    measured = [0.0] * len(model.layers)
    if peers.place.rank == 0:
        measured = layer_seconds(model, task.example(plan.split.micro_batch_samples), task, precision, device)
        if plan.profile is not None:
            keep_costs(plan.lake, plan.profile, dict(zip(model.layers, measured, strict=True)))
    costs = peers.sum(torch.tensor(measured, dtype=torch.float64), "layer.costs")
    return replace(plan.split, counts=tuple(cut_by_cost(costs.tolist(), len(plan.split.counts))))


def layer_seconds(model: LayeredModel, example: Batch, task: Task, precision: str, device: torch.device
                  ) -> list[float]:
    """Seconds of one micro-batch's forward and backward in each layer, the loss with the last: the least of a few."""
    inputs, targets = (tensor.to(device) for tensor in task.inputs_and_targets(example))
    best = [float("inf")] * len(model.layers)
    for _ in range(REPEATS):
        value: Any = inputs
        for i, layer in enumerate(runnable(layer, device) for layer in model.layers.values()):
            value = _detached(value)
            began = _now(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                result = layer(value)
            outputs = [task.loss_sum(result, targets)] if i == len(best) - 1 else _differentiable(result)
            torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
            best[i] = min(best[i], _now(device) - began)
            for parameter in layer.parameters():  # one layer at a time: the whole model's gradients may not fit
                parameter.grad = None
            value = result
    return best


def _now(device: torch.device) -> float:
    """Seconds, once the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _detached(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_detached(item) for item in value)
    return value.detach().requires_grad_(value.is_floating_point())


def _differentiable(value: Any) -> list[Tensor]:
    return [item for item in (value if isinstance(value, tuple) else (value,)) if item.requires_grad]
