"""The loss over every row of a split, each counted once, on all ranks together.

Runs on: ranks.
Takes:   an agreement, this replica's micro-batches of the split.
Gives:   the mean loss over the whole split: the same on any number of replicas.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.feed.batches import Batch
from pipelines.parallel.agreement.agreement import Agreement


@dataclass(frozen=True)
class Evaluation:
    """Loss in nats, the mean over the units."""

    loss: float
    samples: int
    units: int
    seconds: float


def evaluate(agreement: Agreement, micro_batches: Iterable[Batch], num_micro_batches: int) -> Evaluation:
    """See ``Agreement.evaluate``."""
    began = time.perf_counter()
    totals = agreement.evaluate(micro_batches, num_micro_batches)
    return Evaluation(totals.loss / max(totals.units, 1), totals.samples, totals.units, time.perf_counter() - began)
