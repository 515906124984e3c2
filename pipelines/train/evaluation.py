"""The loss over every row of a split, each counted once, on all ranks together.

Runs on: ranks.
Takes:   a loss sum, this replica's micro-batches of the split, the ring.
Gives:   the mean loss per token over the whole split: the same on any number of replicas.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.parallel.comms import Ring
from pipelines.parallel.data_parallel import LossSum


@dataclass(frozen=True)
class Evaluation:
    """Loss in nats per token."""

    loss: float
    samples: int
    tokens: int
    seconds: float


@torch.no_grad()
def evaluate(loss_sum: LossSum, micro_batches: Iterable[tuple[Tensor, Tensor, Tensor]], ring: Ring) -> Evaluation:
    """Sums in float64, so that the order of additions does not show."""
    began = time.perf_counter()
    totals = torch.zeros(3, dtype=torch.float64)  # loss, tokens, samples
    for tokens, lengths, weights in micro_batches:
        loss, counted = loss_sum(tokens, lengths, weights)
        totals += torch.tensor([loss.item(), counted, float((weights > 0).sum())], dtype=torch.float64)
    ring.sum(totals, "evaluation.totals")
    loss_total, token_total, sample_total = totals.tolist()
    return Evaluation(loss_total / max(token_total, 1.0), int(sample_total), int(token_total),
                      time.perf_counter() - began)
