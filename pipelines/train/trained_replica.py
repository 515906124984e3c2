"""An exported model on the ranks that evaluate it, whole or split: no optimizer, no gradients.

Runs on: ranks, all at the same time.
Takes:   config and plan of the attempt, which model of the run, the peers.
Gives:   the model's task, and what evaluates (``train/evaluate.py``).
"""

from __future__ import annotations

import torch

from pipelines.config.load import Config
from pipelines.lake.exported import described
from pipelines.lake.rank_records import RecordWriter
from pipelines.models.as_planned import sketch_as_planned
from pipelines.models.exported_model import fill_trained
from pipelines.parallel.joint_evaluation import JointEvaluation
from pipelines.parallel.peers import Peers
from pipelines.plan.run_plan import RunPlan
from pipelines.tasks.table import task_of
from pipelines.tasks.task import Task
from pipelines.train.own_replica import own_replica


def trained_replica(config: Config, plan: RunPlan, which: str, peers: Peers, device: torch.device, records: RecordWriter
                    ) -> tuple[Task, JointEvaluation]:
    """``which``: ``best`` or ``last``.

    Raises:
        CheckpointError: the model is damaged. RankFailedError: a user's code is not what the driver looked at.
    """
    files = plan.lake.store.below(plan.lake.model(plan.run_id, which))
    task = task_of(described(files)[1])
    model = sketch_as_planned(config.recipe.model, task.facts.sizes, config.recipe.train.seed, plan.model_code)
    replica = own_replica(config, plan, task, model, peers, device, records,
                          lambda sketch, layers: fill_trained(sketch, config.recipe.model, files, layers))
    return task, JointEvaluation(replica, peers)
