"""One rank's training: the only place where its parts are made and put together.

Runs on: ranks, all at the same time.
Takes:   config and plan of the attempt, the peers, the rank's records.
Gives:   all steps done; on rank 0 the models.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from pipelines.config.load import Config
from pipelines.lake.manifest import Manifest
from pipelines.lake.rank_records import RecordWriter
from pipelines.parallel.peers import Peers
from pipelines.plan.run_plan import RunPlan
from pipelines.tasks.table import task_of
from pipelines.train.assembly import assemble
from pipelines.train.evaluate import EvaluatedSplit, evaluation_of
from pipelines.train.loop import TrainingLoop
from pipelines.train.progress import Progress
from pipelines.train.save import saving_of
from pipelines.train.step_inputs import share_of, step_inputs


def train_rank(config: Config, plan: RunPlan, peers: Peers, device: torch.device,
               records: RecordWriter) -> tuple[int, dict[str, Any] | None]:
    """Trains this rank's part of a run.

    Returns:
        The last step, and what the best model is to be asked for then (``Task.exhibit_request``).
    """
    recipe, platform, place = config.recipe, config.platform, peers.place
    dataset = plan.lake.store.below(plan.dataset)
    manifest = Manifest.load(dataset)
    task = task_of(manifest.task)
    share = share_of(plan, place)
    progress = Progress(records, platform.launch.stall_timeout_s)
    agreement = assemble(config, plan, task, manifest.task.sizes, peers, device, records, progress)
    validation = EvaluatedSplit(manifest, dataset, "validation", share, recipe.train.evaluation_rows)
    evaluate = evaluation_of(config, validation, agreement, task, device, progress)
    loop = TrainingLoop(recipe, plan.steps, agreement, records, device=device,
                        evaluate=lambda: evaluate()[0],
                        save=saving_of(config, plan, task, agreement, progress))
    with ExitStack() as stack:
        if platform.layout.compile:
            stack.enter_context(progress.compilations())
        inputs = stack.enter_context(step_inputs(config, plan, manifest, share, place, device))
        return loop.run(inputs), task.exhibit_request(recipe)
