"""What an attempt at a run is going to do: made once by the driver, which shows and stores it; launch and ranks do it.

Runs on: driver and ranks (no torch, no pyspark).
Takes:   recipe, platform, the dataset's manifest, the model's facts, for an automatic layout the room there is.
Gives:   ``RunPlan``, saved as ``plan.json`` in the attempt's folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from pipelines.config.load import Config
from pipelines.config.platform import Layout
from pipelines.config.section import MOST_COUNTED
from pipelines.errors import ConfigError, DataError, SparkringError
from pipelines.feed.lanes import steps_per_epoch
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake, RunFolder
from pipelines.plan.layer_costs import kept_costs, profile_key
from pipelines.plan.layout import Choice, Room, check_split, choose_layout, planned_split, planned_steps, predicted_step_s
from pipelines.plan.memory import FeedFacts, rank_bytes
from pipelines.plan.model_facts import ModelFacts
from pipelines.plan.split_plan import SplitPlan, cut_by_cost


@dataclass(frozen=True)
class RunPlan:
    """Everything that launch and ranks need beside the settings."""

    run_id: str
    root: str  # of the lake, as all machines see it
    dataset: str  # key of the dataset's version
    layout: Layout  # as given, or as chosen
    choice: Choice | None  # what an automatic layout was chosen from
    split: SplitPlan  # cut and schedule of each replica
    profile: str | None  # what the layers cost, where they are cut by that (``layer_costs.py``)
    cut_is_measured: bool  # nobody has yet: the ranks do, and cut by it (record ``cut``); ``split`` is a forecast
    steps: int
    steps_per_epoch: int
    parameters: int
    unit: str  # what a step counts beside its samples, see ``TaskFacts.unit``
    units_per_step: int  # at most
    memory_bytes: int  # of the rank that needs most, estimated
    cycle_time_ms: float  # Horovod's
    model_code: dict[str, str] = field(default_factory=dict)  # see ``ModelFacts.code``

    @property
    def lake(self) -> Lake:
        return Lake.at(self.root)

    def save(self, run: RunFolder, attempt: int) -> None:
        text = json.dumps(asdict(self), indent=2, default=lambda layout: layout.model_dump(mode="json"))
        run.store.put(run.plan(attempt), text)

    @staticmethod
    def load(run: RunFolder, attempt: int) -> RunPlan:
        try:
            content = json.loads(run.store.read(run.plan(attempt)))
            split = content["split"]
            return RunPlan(**{
                **content, "layout": Layout.model_validate(content["layout"]),
                "choice": None if content["choice"] is None else Choice.of_json(content["choice"]),
                "split": SplitPlan(**{**split, "counts": tuple(split["counts"])})})
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(run.store.place(run.plan(attempt)), f"is not a run plan ({error})", "start the run again") from error


def plan_run(config: Config, manifest: Manifest, facts: ModelFacts, run_id: str, lake: Lake, room: Room | None = None) -> RunPlan:
    """The plan of the next attempt. ``room`` decides an automatic layout.

    Raises:
        DataError: the dataset has no training rows or does not fit the recipe.
        ConfigError: the model and the layout do not fit. ResourceError: there is not room for the model.
    """
    recipe = config.recipe
    dataset = lake.dataset(manifest.name, manifest.version)
    place = lake.store.place(dataset)
    if not manifest.rows("train"):
        raise DataError(place, "has no training rows", "give more input")
    for name, size in manifest.task.sizes.items():
        if (wanted := getattr(recipe.prepare, name, size)) not in (size, None):  # None: what the data has
            raise DataError(place, f"has {name} {size}, prepare.{name} is {wanted}", "prepare the dataset again")
    if recipe.data.augment is not None and not manifest.task.image_column:
        raise ConfigError(SparkringError("data.augment", f"is of images, the dataset {place} has none", "leave it out"))
    per_epoch = steps_per_epoch(manifest.rows("train"), recipe.data.num_lanes, recipe.train.global_batch_samples)
    steps = planned_steps(recipe, manifest.rows("train"))
    if steps > MOST_COUNTED:
        raise ConfigError(SparkringError("train.epochs", f"{recipe.train.epochs:,} epochs of {per_epoch:,} steps are more than "
                                         f"the {MOST_COUNTED:,} steps that the tables count", "train fewer epochs"))
    feed = FeedFacts.of(recipe.data, recipe.train.global_batch_samples, config.platform.reader, manifest)
    layout, choice = config.platform.layout, None
    if room is not None and layout.automatic:
        choice = choose_layout(facts, feed, recipe, layout, room)
        layout = choice.layout
    check_split(facts, recipe, layout)
    split = planned_split(facts, recipe, layout)
    profile, costs = None, None
    if layout.num_segments > 1 and layout.cut == "cost":
        profile = profile_key(lake, recipe, layout, manifest.task.sizes, facts)
        costs = kept_costs(lake, profile, [layer.name for layer in facts.layers])
        if costs is not None:
            split = replace(split, counts=tuple(cut_by_cost(costs, len(split.counts))))
    return RunPlan(
        run_id=run_id, root=lake.address, dataset=dataset, layout=layout, choice=choice, split=split,
        profile=profile, cut_is_measured=profile is not None and costs is None,
        steps=steps, steps_per_epoch=per_epoch,
        parameters=facts.parameters, unit=manifest.task.unit,
        units_per_step=recipe.train.global_batch_samples * manifest.task.units_per_sample,
        model_code=facts.code, memory_bytes=max(rank_bytes(facts, feed, split, recipe.optimizer)),
        cycle_time_ms=config.platform.communication.cycle_time_ms or cycle_time_ms(predicted_step_s(facts, recipe, split)))


def cycle_time_ms(step_s: float) -> float:
    """How often Horovod looks for work: 1 % of a step, from 1 to 50 ms.

    Between allreduces each cycle costs the training thread a few context switches (14 % of the throughput of a 1.2 s step
    with 1 ms cycles on two cores), and an allreduce waits for the next cycle.
    """
    return round(min(50.0, max(1.0, 10.0 * step_s)), 1)
