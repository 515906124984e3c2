"""The model of this rank, put together as the plan says: sketch, replica, optimizer, agreement.

Runs on: ranks, all at the same time.
Takes:   config and plan, the task, the dataset's sizes, the peers.
Gives:   an ``Agreement``, ready for the loop.
"""

from __future__ import annotations

import torch

from pipelines.config.load import Config
from pipelines.lake.rank_records import RecordWriter
from pipelines.models.as_planned import fill_as_planned, sketch_as_planned
from pipelines.parallel.agreement.agreement import Agreement
from pipelines.parallel.agreement.every_step import EveryStep
from pipelines.parallel.peers import Peers
from pipelines.plan.run_plan import RunPlan
from pipelines.tasks.task import Task
from pipelines.train.optimizer import build_optimizer
from pipelines.train.own_replica import own_replica
from pipelines.train.progress import Progress
from pipelines.train.random_state import seed_everything, seed_of_rank


def assemble(config: Config, plan: RunPlan, task: Task, sizes: dict[str, int], peers: Peers, device: torch.device,
             records: RecordWriter, progress: Progress) -> Agreement:
    """
    Raises:
        ConfigError: ranks would begin with different models. RankFailedError: a user's code, or the weights of a folder, are not
            what the driver looked at. CheckpointError: they cannot be read.
    """
    recipe = config.recipe
    model = sketch_as_planned(recipe.model, sizes, recipe.train.seed, plan.model_code)
    replica = own_replica(
        config, plan, task, model, peers, device, records,
        lambda sketch, layers: fill_as_planned(sketch, recipe.model, recipe.train.seed,
                                               progress.counted("loading the model", layers, len(layers)), plan.model_code))
    seed_everything(seed_of_rank(recipe.train.seed, peers.place.rank))  # where a model may draw: the same in every launch
    return EveryStep(replica, peers.ring, build_optimizer(replica.held, recipe.optimizer, model), config.platform.communication,
                     gradient_wire=recipe.train.gradient_wire, expected_units=plan.units_per_step,
                     clip_norm=recipe.train.clip_norm)
