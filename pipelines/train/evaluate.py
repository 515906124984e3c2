"""The loss over every row of a split, each counted once, on all ranks together.

Runs on: ranks, all at the same time.
Takes:   an agreement, this replica's rows of the split.
Gives:   the mean loss over the whole split: the same on any number of replicas.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipelines.config.load import Config
from pipelines.feed.batches import EvaluationFeed, Share
from pipelines.lake.manifest import Manifest
from pipelines.lake.store import Store
from pipelines.parallel.agreement.agreement import Agreement
from pipelines.train.progress import Progress


@dataclass(frozen=True)
class Evaluation:
    """Loss in nats, the mean over the units."""

    loss: float
    samples: int
    units: int
    seconds: float


def evaluation_of(config: Config, manifest: Manifest, dataset: Store, agreement: Agreement, share: Share, device: torch.device,
                  progress: Progress) -> Callable[[], Evaluation]:
    """The loop's ``evaluate``, over the validation rows."""
    validation = EvaluationFeed(dataset, manifest, config.platform.reader, share, split="validation",
                                rows=config.recipe.train.evaluation_rows)
    micro_batches = validation if agreement.place.needs_samples else ()

    def evaluate() -> Evaluation:
        began = time.perf_counter()
        counted = progress.counted("evaluating", micro_batches, len(validation))
        totals = agreement.evaluate((batch.to(device) for batch in counted), len(validation))
        return Evaluation(totals.loss / max(totals.units, 1), totals.samples, totals.units, time.perf_counter() - began)

    return evaluate
