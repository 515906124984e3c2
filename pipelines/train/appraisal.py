"""One rank's part of the job evaluate: a trained model over a split, its findings and its worst mistakes.

Runs on: ranks, all at the same time.
Takes:   the evaluation's order, config and plan of the attempt, the peers, the rank's records.
Gives:   an ``evaluation`` record; on rank 0 the findings, as a published object.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pipelines.config.load import Config
from pipelines.feed.batches import Share
from pipelines.feed.rows_by_id import rows_by_id
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import RunFolder
from pipelines.lake.rank_records import RecordWriter
from pipelines.parallel.peers import Peers
from pipelines.plan.run_plan import RunPlan
from pipelines.tasks.task import Mistakes
from pipelines.train.evaluate import EvaluatedSplit, evaluation_of
from pipelines.train.progress import Progress
from pipelines.train.trained_replica import trained_replica

MOST_SHOWN = 24  # of the worst mistakes


def evaluate_rank(run: RunFolder, attempt: int, config: Config, plan: RunPlan, peers: Peers, device: torch.device,
                  records: RecordWriter) -> tuple[int, None]:
    """Returns the step of the model that was evaluated."""
    order = json.loads(run.store.read(run.order))
    task, evaluating = trained_replica(config, plan, order["model"], peers, device, records)
    dataset = plan.lake.store.below(plan.dataset)
    manifest = Manifest.load(dataset)
    place = peers.place
    split = EvaluatedSplit(manifest, dataset, order["split"],
                           Share(plan.split.micro_batch_samples, place.replica_index, place.num_replicas))
    worst = None if task.mistakes is None else Worst(task.mistakes)
    evaluated = evaluation_of(config, split, evaluating, task, device, Progress(records, config.platform.launch.stall_timeout_s),
                              also=None if worst is None else worst.see)
    evaluation, sums = evaluated()
    facts = [] if worst is None else worst.of_all(evaluating.sum_over_ranks, place.replica_index, place.num_replicas)
    if place.rank == 0:
        findings = task.findings(sums)
        if task.mistakes is not None and facts:
            rows = rows_by_id(dataset, manifest, config.platform.reader.kind, order["split"], [int(each[0]) for each in facts])
            shown = task.mistakes.shown([each[1:] for each in facts], rows)
            findings = replace(findings, exhibits=(*findings.exhibits, *shown))
        records.write("evaluation", step=order["step"], split=order["split"], **evaluation.facts())
        run.store.put(run.findings(attempt), json.dumps({
            **order, "time_s": round(time.time(), 3), **evaluation.facts(), **findings.as_dict()}))
    return order["step"], None


@dataclass
class Worst:
    """The worst mistakes of the samples seen: rows of the sample's number and its facts."""

    mistakes: Mistakes
    kept: Tensor = field(default_factory=lambda: torch.empty(0))

    def see(self, output: Any, targets: Tensor, sample_ids_B: Tensor) -> None:
        facts_BF = self.mistakes.of(output, targets).cpu()
        rows = torch.cat([sample_ids_B.cpu().double()[:, None], facts_BF], 1)[facts_BF[:, 0] > 0]
        self.kept = worst_first(rows if not len(self.kept) else torch.cat([self.kept, rows]))

    def of_all(self, sum_over_ranks: Any, replica_index: int, num_replicas: int) -> list[list[float]]:
        """The worst of all ranks, the same on each: every replica puts its own where the others have zeros, and the sum has
        them all."""
        slots = torch.zeros(num_replicas * MOST_SHOWN, 1 + self.mistakes.num_facts, dtype=torch.float64)
        if len(self.kept):
            first = replica_index * MOST_SHOWN
            slots[first : first + len(self.kept)] = self.kept
        flat = slots.flatten()
        sum_over_ranks(flat)
        together = flat.view_as(slots)
        found: list[list[float]] = worst_first(together[together[:, 1] > 0]).tolist()
        return found


def worst_first(rows: Tensor) -> Tensor:
    """At most MOST_SHOWN, the worst first; of equal ones the sample that comes first, whatever the layout."""
    rows = rows[rows[:, 0].argsort(stable=True)]
    return rows[rows[:, 1].argsort(descending=True, stable=True)][:MOST_SHOWN]
