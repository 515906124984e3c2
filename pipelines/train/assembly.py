"""This rank's replica and agreement, put together as the plan says: the one place that chooses between kinds of them.

Runs on: ranks.
Takes:   config and plan, the model's structure, the ring and the segments that this rank has joined.
Gives:   an ``Agreement``, ready for the loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from pipelines.config.load import Config
from pipelines.config.platform import Layout
from pipelines.errors import ResourceError
from pipelines.lake.rank_records import RecordWriter
from pipelines.models.build import fill_model
from pipelines.models.layered import LayeredModel
from pipelines.parallel.agreement.agreement import Agreement
from pipelines.parallel.agreement.every_step import EveryStep
from pipelines.parallel.replica.replica import Replica
from pipelines.parallel.replica.split import SplitReplica
from pipelines.parallel.replica.torch_stages import shapes_between
from pipelines.parallel.replica.whole import WholeReplica
from pipelines.parallel.ring import Ring
from pipelines.parallel.same_start import check_same_start
from pipelines.parallel.segments import SegmentGroup
from pipelines.plan.run_plan import RunPlan
from pipelines.tasks.task import Task
from pipelines.train.costs import measured_cut
from pipelines.train.optimizer import build_optimizer


@dataclass(frozen=True)
class Peers:
    """Those with whom this rank works."""

    ring: Ring  # the ranks of the other replicas that hold the same segment
    group: SegmentGroup | None  # the other segments of this replica; None where it is of one rank

    def leave(self) -> None:
        if self.group is not None:
            self.group.leave()
        self.ring.leave()


def assemble(config: Config, plan: RunPlan, task: Task, model: LayeredModel, peers: Peers, device: torch.device,
             records: RecordWriter) -> Agreement:
    """Fills the layers that this rank holds of a sketch, and wires them.

    Raises:
        ConfigError: ranks would begin with different models. ResourceError: torch cannot compile here.
    """
    recipe, platform = config.recipe, config.platform
    check_compiler(platform.layout)
    replica: Replica = (_whole(config, task, model, peers.ring, device) if peers.group is None
                        else _split(config, plan, task, model, peers.ring, peers.group, device, records))
    return EveryStep(replica, peers.ring, build_optimizer(replica.held, recipe.optimizer), platform.communication,
                     gradient_wire=recipe.train.gradient_wire, expected_units=plan.units_per_step,
                     clip_norm=recipe.train.clip_norm)


def _whole(config: Config, task: Task, model: LayeredModel, ring: Ring, device: torch.device) -> WholeReplica:
    fill_model(model, config.recipe.model, config.recipe.train.seed, model.layers)
    check_same_start(model, ring, None)
    return WholeReplica(model, task, ring.place, device=device, precision=config.recipe.train.precision,
                        compiled=config.platform.layout.compile)


def _split(config: Config, plan: RunPlan, task: Task, model: LayeredModel, ring: Ring, group: SegmentGroup,
           device: torch.device, records: RecordWriter) -> SplitReplica:
    recipe, layout = config.recipe, config.platform.layout
    split = plan.split
    example = task.example(split.micro_batch_samples)
    if plan.cut_is_measured:
        counts = measured_cut(model, example, task, plan, recipe.train.precision, device, ring, group)
        split = replace(split, counts=counts)
    names = list(model.layers)
    records.write("cut", schedule=layout.schedule, parts=[
        f"{names[part[0]]} to {names[part[-1]]}" if len(part) > 1 else names[part[0]] for part in split.ranges])
    shapes = shapes_between(model, task.inputs_and_targets(example)[0], recipe.train.precision)
    own = {names[i] for part in split.parts_of(ring.place.segment_index) for i in split.ranges[part]}
    fill_model(model, recipe.model, recipe.train.seed, own)
    check_same_start(model, ring, group)
    return SplitReplica(model, task, split, shapes, group, device=device, precision=recipe.train.precision,
                        compiled=layout.compile)


def check_compiler(layout: Layout) -> None:
    """Raises ResourceError where torch cannot link what it compiles for the CPU: it does not quote its own path."""
    if layout.compile and layout.device == "cpu" and " " in torch.__file__:
        raise ResourceError("layout.compile", f"torch cannot compile from a path with a space in it ({torch.__file__})",
                             "install the environment in a path without spaces, or set layout.compile: false")
