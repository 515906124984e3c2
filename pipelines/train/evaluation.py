"""The loss over every row of a split, each counted once, on all ranks together.

Runs on: ranks.
Takes:   a strategy, this replica's micro-batches of the split, the ring.
Gives:   the mean loss per token over the whole split: the same on any number of replicas.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from pipelines.parallel.comms import Ring
from pipelines.parallel.steps import MicroBatch, Strategy


@dataclass(frozen=True)
class Evaluation:
    """Loss in nats per token."""

    loss: float
    samples: int
    tokens: int
    seconds: float


def evaluate(strategy: Strategy, micro_batches: Iterable[MicroBatch], num_micro_batches: int, ring: Ring) -> Evaluation:
    """Sums in float64, so that the order of additions does not show."""
    began = time.perf_counter()
    own = strategy.evaluate(micro_batches, num_micro_batches)
    totals = ring.sum(torch.tensor([own.loss, own.tokens, own.samples], dtype=torch.float64), "evaluation.totals")
    loss, tokens, samples = totals.tolist()
    return Evaluation(loss / max(tokens, 1.0), int(samples), int(tokens), time.perf_counter() - began)
