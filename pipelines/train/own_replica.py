"""The replica that this rank is part of: the one place that chooses between kinds of them.

Runs on: ranks, all at the same time.
Takes:   config and plan, the model's structure, the peers.
Gives:   a ``Replica``; the layers that this rank holds are filled, and equal on all ranks that hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

from pipelines.config.load import Config
from pipelines.lake.rank_records import RecordWriter
from pipelines.models.layered import LayeredModel
from pipelines.parallel.peers import Peers
from pipelines.parallel.replica.replica import Replica
from pipelines.parallel.replica.split import SplitReplica
from pipelines.parallel.replica.whole import WholeReplica
from pipelines.parallel.same_start import check_same_start
from pipelines.plan.run_plan import RunPlan
from pipelines.tasks.task import Task
from pipelines.train.costs import measured_split

Fill = Callable[[LayeredModel, Collection[str]], None]  # gives some layers of a sketch their values


def own_replica(config: Config, plan: RunPlan, task: Task, model: LayeredModel, peers: Peers, device: torch.device,
                records: RecordWriter, fill: Fill) -> Replica:
    """
    Args:
        model: a sketch, the same on every rank.
    Raises:
        ConfigError: ranks would begin with different models; a model that cannot be split.
    """
    recipe, layout = config.recipe, config.platform.layout
    if peers.group is None:
        fill(model, model.layers)
        check_same_start(model, peers)
        return WholeReplica(model, task, peers.place, device=device, precision=recipe.train.precision, compiled=layout.compile)
    split = (measured_split(plan, task, model, recipe.train.precision, peers, device) if plan.cut_is_measured
             else plan.split)
    names = list(model.layers)
    records.write("cut", schedule=split.schedule, counts=split.counts, parts=[
        f"{names[part[0]]} to {names[part[-1]]}" if len(part) > 1 else names[part[0]] for part in split.ranges])
    fill(model, {names[i] for i in split.layers_of(peers.place.segment_index)})
    check_same_start(model, peers)
    return SplitReplica(model, task, split, peers.group, device=device, precision=recipe.train.precision,
                        compiled=layout.compile)
