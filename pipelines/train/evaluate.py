"""Loss and metrics over every row of a split, each counted once, on all ranks together.

Runs on: ranks, all at the same time.
Takes:   what evaluates (an agreement), this replica's rows of the split.
Gives:   ``Evaluation`` of the whole split: the same on any layout. Sums and counts travel; the division comes last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from pipelines.config.load import Config
from pipelines.feed.batches import Batch, EvaluationFeed, Share
from pipelines.lake.manifest import Manifest
from pipelines.lake.metric_facts import Metrics
from pipelines.lake.store import Store
from pipelines.parallel.steps import See, Totals
from pipelines.plan.places import Place
from pipelines.tasks.task import Task
from pipelines.train.progress import Progress


@dataclass(frozen=True)
class Evaluation:
    """Loss in nats, the mean over the units; and the task's metrics."""

    loss: float
    samples: int
    units: int
    seconds: float
    metrics: Metrics = field(default_factory=dict)

    def of(self, metric: str) -> float | None:
        """One of ``lake/metric_facts.py``; None where the task has it not."""
        return self.loss if metric == "loss" else self.metrics.get(metric)

    def facts(self) -> dict[str, Any]:
        """As a record holds it, for the table ``evaluations``."""
        return {"loss": self.loss, "samples": self.samples, "units": self.units, "seconds": round(self.seconds, 6),
                **self.metrics}


class Evaluating(Protocol):
    """What the ranks evaluate with: an ``Agreement``, or what has no optimizer."""

    @property
    def place(self) -> Place: ...

    def evaluate(self, micro_batches: Iterable[Batch], num_micro_batches: int, see: See) -> Totals: ...

    def sum_over_ranks(self, values: Tensor) -> None: ...


@dataclass(frozen=True)
class EvaluatedSplit:
    """The rows to evaluate on, and what they are of."""

    manifest: Manifest
    dataset: Store
    name: str
    share: Share
    rows: int | None = None  # only the first so many; None: all


def evaluation_of(config: Config, split: EvaluatedSplit, evaluating: Evaluating, task: Task, device: torch.device,
                  progress: Progress, also: See | None = None) -> Callable[[], tuple[Evaluation, Tensor]]:
    """What evaluates the split whenever it is called: the figures, and the sums that the metrics were made of.

    Args:
        also: looks at all that the metrics are made of, too.
    """
    feed = EvaluationFeed(split.dataset, split.manifest, config.platform.reader, split.share, split=split.name, rows=split.rows)
    micro_batches = feed if evaluating.place.needs_samples else ()

    def evaluate() -> tuple[Evaluation, Tensor]:
        began = time.perf_counter()
        sums = torch.zeros(task.num_metric_sums, dtype=torch.float64)

        def see(output: Any, targets: Tensor, sample_ids_B: Tensor) -> None:
            sums.add_(task.metric_sums(output, targets).cpu())
            if also is not None:
                also(output, targets, sample_ids_B)

        counted = progress.counted("evaluating", micro_batches, len(feed))
        totals = evaluating.evaluate((batch.to(device) for batch in counted), len(feed), see)
        evaluating.sum_over_ranks(sums)
        loss = totals.loss / max(totals.units, 1)
        evaluation = Evaluation(loss, totals.samples, totals.units, time.perf_counter() - began,
                                task.metrics(loss, sums, split.manifest.task, split.name))
        return evaluation, sums

    return evaluate
