"""The optimizer with its decay groups, and the learning rate of each step.

Runs on: ranks.
Takes:   recipe sections ``optimizer`` and ``schedule``.
Gives:   a torch optimizer; ``learning_rate_at(step)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipelines.config.optimizers import (
    AdamW,
    LinearSchedule,
    Muon,
    OneCycleSchedule,
    Optimizer,
    Schedule,
    Sgd,
    StepSchedule,
    WsdSchedule,
)
from pipelines.models.layered import LayeredModel
from pipelines.models.matrices import matrices_of
from pipelines.train.muon import MatrixOptimizer


def build_optimizer(held: nn.Module, settings: Optimizer, model: LayeredModel) -> torch.optim.Optimizer:
    """Over each parameter once: matrices, kernels and embeddings decay, vectors do not.

    The fused kernels update a parameter in one pass over memory, on CPU as on CUDA.

    Args:
        held: what this rank trains of the model.
    """
    parameters = list(dict.fromkeys(held.parameters())) or [nn.Parameter(torch.empty(0))]  # a segment may have none
    matrices = matrices_of(model) if isinstance(settings, Muon) else {}
    own_matrices = {p: matrices[p] for p in parameters if p in matrices}
    parameters = [p for p in parameters if p not in matrices]
    groups = [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
              {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if isinstance(settings, Muon):
        return MatrixOptimizer(own_matrices, groups, settings)
    return _OPTIMIZERS[type(settings)](settings, groups)


def _adamw(settings: AdamW, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), eps=settings.epsilon,
                             fused=True)


def _sgd(settings: Sgd, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.nesterov, fused=True)


_OPTIMIZERS: dict[type, Callable[..., torch.optim.Optimizer]] = {AdamW: _adamw, Sgd: _sgd}


def learning_rate_at(step: int, total_steps: int, peak: float, schedule: Schedule) -> float:
    """Learning rate of a step (1 .. total_steps): linear warm-up, then the schedule's curve to its end."""
    if step <= schedule.warmup_steps:
        return peak * step / (schedule.warmup_steps + 1)
    done_steps = step - 1 - schedule.warmup_steps
    done = min(1.0, done_steps / max(1, total_steps - 1 - schedule.warmup_steps))
    if isinstance(schedule, StepSchedule):
        return float(peak * schedule.factor ** (done_steps // schedule.every_steps))
    if isinstance(schedule, OneCycleSchedule):
        first, last = peak * schedule.first_fraction, peak * schedule.final_fraction
        if done < schedule.rise_fraction:
            return _wave(first, peak, done / schedule.rise_fraction)
        return _wave(peak, last, (done - schedule.rise_fraction) / (1.0 - schedule.rise_fraction))
    if isinstance(schedule, WsdSchedule):
        decaying = schedule.decay_fraction * total_steps  # of its steps the last is at the final fraction
        done = max(0.0, 1.0 - max(0, total_steps - step) / decaying)
        return peak + (peak * schedule.final_fraction - peak) * done
    if isinstance(schedule, LinearSchedule):
        return peak + (peak * schedule.final_fraction - peak) * done
    if schedule.kind == "constant":
        return peak
    return _wave(peak, peak * schedule.final_fraction, done)


def _wave(begin: float, end: float, done: float) -> float:
    """Half a cosine wave from one value to another."""
    return end + (begin - end) * 0.5 * (1.0 + math.cos(math.pi * done))
