"""What a run is going to do, as plain numbers: shared by the driver, which shows it, and the ranks, which do it.

Runs on: driver and ranks (no torch, no pyspark).
Takes:   recipe, platform, the dataset's manifest and the model's facts.
Gives:   ``RunPlan``, saved as ``plan.json`` beside the resolved config.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from pipelines.config.load import Config
from pipelines.config.section import MOST_COUNTED
from pipelines.errors import ConfigError, DataError, SparkringError
from pipelines.feed.lanes import steps_per_epoch
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake, RunFolder
from pipelines.plan.layout import check_split, planned_split, planned_steps, predicted_step_s
from pipelines.plan.memory import FeedFacts, rank_bytes
from pipelines.plan.model_facts import ModelFacts


@dataclass(frozen=True)
class RunPlan:
    """Everything a rank needs beside the resolved config."""

    run_id: str
    root: str  # of the lake, as all machines see it
    dataset: str  # key of the dataset's version
    steps: int
    steps_per_epoch: int
    parameters: int
    unit: str  # what a step counts beside its samples, see ``TaskFacts.unit``
    units_per_step: int  # at most
    memory_bytes: int  # of the rank that needs most, estimated
    cycle_time_ms: float  # Horovod's
    model_code: dict[str, str] = field(default_factory=dict)  # of a user's model, see ``ModelFacts.code``

    def save(self, run: RunFolder, attempt: int) -> None:
        run.store.put(run.plan(attempt), json.dumps(asdict(self), indent=2))

    @staticmethod
    def load(run: RunFolder, attempt: int) -> RunPlan:
        try:
            return RunPlan(**json.loads(run.store.read(run.plan(attempt))))
        except (OSError, TypeError, ValueError) as error:
            raise DataError(run.store.place(run.plan(attempt)), f"is not a run plan ({error})", "start the run again") from error


def plan_run(config: Config, manifest: Manifest, facts: ModelFacts, run_id: str, lake: Lake) -> RunPlan:
    """Raises DataError when the dataset has no training rows or does not fit the recipe; ConfigError where the model and
    the layout do not fit."""
    recipe, layout = config.recipe, config.platform.layout
    dataset = lake.dataset(manifest.name, manifest.version)
    place = lake.store.place(dataset)
    if not manifest.rows("train"):
        raise DataError(place, "has no training rows", "give more input")
    for name, size in manifest.task.sizes.items():
        if (wanted := getattr(recipe.prepare, name, size)) != size:
            raise DataError(place, f"has {name} {size}, prepare.{name} is {wanted}", "prepare the dataset again")
    per_epoch = steps_per_epoch(manifest.rows("train"), recipe.data.num_lanes, recipe.train.global_batch_samples)
    steps = planned_steps(recipe, manifest.rows("train"))
    if steps > MOST_COUNTED:
        raise ConfigError(SparkringError("train.epochs", f"{recipe.train.epochs:,} epochs of {per_epoch:,} steps are more than "
                                         f"the {MOST_COUNTED:,} steps that the tables count", "train fewer epochs"))
    check_split(facts, recipe, layout)
    split = planned_split(facts, recipe, layout)
    step_s = predicted_step_s(facts, recipe, split)
    feed = FeedFacts.of(recipe.data, recipe.train.global_batch_samples, config.platform.reader, manifest)
    return RunPlan(
        run_id=run_id, root=str(lake.root), dataset=dataset, steps=steps, steps_per_epoch=per_epoch,
        parameters=facts.parameters, unit=manifest.task.unit,
        units_per_step=recipe.train.global_batch_samples * manifest.task.units_per_sample,
        model_code=facts.code, memory_bytes=max(rank_bytes(facts, feed, split)),
        cycle_time_ms=config.platform.communication.cycle_time_ms or cycle_time_ms(step_s))


def cycle_time_ms(step_s: float) -> float:
    """How often Horovod looks for work: 1 % of a step, from 1 to 50 ms.

    Between allreduces each cycle costs the training thread a few context switches (14 % of the throughput of a 1.2 s step
    with 1 ms cycles on two cores), and an allreduce waits for the next cycle.
    """
    return round(min(50.0, max(1.0, 10.0 * step_s)), 1)
