"""AdamW with decay groups, and the learning rate of each step.

Runs on: ranks.
Takes:   recipe sections ``optimizer`` and ``schedule``.
Gives:   a torch optimizer; ``learning_rate_at(step)``.

Source: Loshchilov & Hutter 2019 (AdamW), 2017 (cosine schedule).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from pipelines.config.recipe import Optimizer, Schedule


def build_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW over each parameter once: matrices and embeddings decay, vectors do not.

    The fused kernel updates a parameter in one pass over memory, on CPU as on CUDA.
    """
    parameters = list(dict.fromkeys(model.parameters()))
    groups = [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
              {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate,
                             betas=(settings.beta1, settings.beta2), eps=settings.epsilon, fused=True)


def learning_rate_at(step: int, total_steps: int, peak: float, schedule: Schedule) -> float:
    """Learning rate of a step (1 .. total_steps): linear warm-up, then the schedule's curve to its end."""
    if step <= schedule.warmup_steps:
        return peak * step / (schedule.warmup_steps + 1)
    if schedule.kind == "constant":
        return peak
    done = (step - 1 - schedule.warmup_steps) / max(1, total_steps - 1 - schedule.warmup_steps)
    floor = peak * schedule.final_fraction
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
