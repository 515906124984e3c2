"""What the stage train would do: which run it is, how that stands, and the plan of its next attempt.

Runs on: driver.
Takes:   config, lake, dataset; the session, where only the executors can tell what an automatic layout has to do with.
Gives:   ``TrainPlan``, which ``--dry-run`` shows and ``launch/train.py`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import SparkSession

from pipelines.config.load import Config
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake, RunFolder
from pipelines.lake.runs import RunState
from pipelines.launch.identity import check_run_id, default_run_id
from pipelines.launch.room import room_known, room_there
from pipelines.models.facts import check_vocabulary, model_facts
from pipelines.plan.layout import Room
from pipelines.plan.run_plan import RunPlan, plan_run


@dataclass(frozen=True)
class TrainPlan:
    """A run, and the attempt that comes next where it is not complete."""

    config: Config
    lake: Lake
    manifest: Manifest
    run_id: str
    earlier: RunState | None  # how the run stands, where it has begun
    room: Room | None  # that an automatic layout was chosen for
    attempt: RunPlan | None  # None: the layout is automatic, and what it has to do with is known once executors are there

    @property
    def run(self) -> RunFolder:
        return self.lake.run(self.run_id)

    @property
    def complete(self) -> bool:
        return self.earlier is not None and self.earlier.status == "completed"


def plan_train(config: Config, lake: Lake, manifest: Manifest, run_id: str | None) -> TrainPlan:
    """Starts nothing and writes nothing.

    Args:
        run_id: None for the recipe's own.
    Raises:
        ConfigError: the id belongs to another recipe or dataset; model, layout and recipe do not fit.
        DataError: see ``plan/run_plan.py``. ResourceError: an automatic layout finds no room for the model.
    """
    run_id = run_id or default_run_id(config.recipe, manifest)
    return plan_ranks(config, lake, manifest, run_id, check_run_id(lake.run(run_id), config.recipe, manifest))


def plan_ranks(config: Config, lake: Lake, manifest: Manifest, run_id: str, earlier: RunState | None) -> TrainPlan:
    """The next launch of a run's ranks, as far as it can be planned before the executors are there."""
    automatic = config.platform.layout.automatic
    room = room_known(config.platform) if automatic else None
    attempt = None if automatic and room is None else _plan_attempt(config, lake, manifest, run_id, room)
    return TrainPlan(config, lake, manifest, run_id, earlier, room, attempt)


def attempt_plan(plan: TrainPlan, spark: SparkSession, say: Callable[[str], None]) -> RunPlan:
    """What was planned; for an automatic layout, once the executors are there, unless it was planned for just that room.

    Raises:
        ResourceError: there is not room for the model.
    """
    automatic = plan.config.platform.layout.automatic
    room = room_there(spark, plan.config.platform, say) if automatic else None
    if plan.attempt is not None and room == plan.room:
        return plan.attempt
    return _plan_attempt(plan.config, plan.lake, plan.manifest, plan.run_id, room)


def _plan_attempt(config: Config, lake: Lake, manifest: Manifest, run_id: str, room: Room | None) -> RunPlan:
    check_vocabulary(config.recipe, lake.store.below(lake.dataset(manifest.name, manifest.version)))
    return plan_run(config, manifest, model_facts(config.recipe, manifest), run_id, lake, room)
