"""The map: the stages in order, from raw input to report.

Runs on: driver.
Takes:   a checked config and which stages are wanted.
Gives:   a published dataset, a completed run, loaded tables, a report; what is complete already is skipped, and Spark
         is only started when a stage needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from pipelines.config.load import Config
from pipelines.config.platform import Storage
from pipelines.errors import DataError, SparkringError
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.launch.identity import check_run_id, default_run_id
from pipelines.launch.observer import Observer
from pipelines.launch.preflight import check_launch, check_slots
from pipelines.launch.room import chosen_layout, known_room
from pipelines.launch.train import train
from pipelines.models.facts import model_facts
from pipelines.plan.layout import Choice
from pipelines.plan.run_plan import RunPlan, plan_run
from pipelines.prepare.prepare import PreparePlan, plan_prepare, prepare_planned
from pipelines.spark.session import requested_master
from pipelines.spark.session_start import SessionStart
from pipelines.track import LiveLoader, find_run, load_run, write_report

STAGES = ("prepare", "train", "report")


@dataclass(frozen=True)
class FlowPlan:
    """What a flow would do; ``None`` where that is only known once the dataset is there."""

    dataset: PreparePlan
    manifest: Manifest | None
    run_id: str | None
    run_complete: bool
    run_plan: RunPlan | None
    choice: Choice | None = None  # of an automatic layout


def plan_flow(config: Config, run_id: str | None, begin_build: Callable[[PreparePlan], None] | None = None) -> FlowPlan:
    """Looks at the lake without starting Spark or writing anything; ``begin_build``: see ``plan_prepare``."""
    lake = Lake.at(config.platform.storage.root)
    if run_id is not None:
        lake.run(run_id)  # refuses what is no name, before the input is listed
    dataset = plan_prepare(config.recipe, lake, begin_build)
    if dataset.version is None or not dataset.exists:
        return FlowPlan(dataset, None, run_id, False, None)
    manifest = Manifest.load(lake.store.below(lake.dataset(config.recipe.name, dataset.version)))
    run_id = run_id or default_run_id(config.recipe, manifest)
    state = check_run_id(lake.run(run_id), config.recipe, manifest)
    complete = state is not None and state.status == "completed"
    choice = None
    if config.platform.layout.automatic:
        room = known_room(config.platform)
        if room is None:  # known once the session is up
            return FlowPlan(dataset, manifest, run_id, complete, None)
        choice = chosen_layout(config, manifest, *room)
        config = config.with_layout(choice.layout)
    run_plan = plan_run(config, manifest, model_facts(config.recipe, manifest), run_id, lake)
    return FlowPlan(dataset, manifest, run_id, complete, run_plan, choice)


def check_flow(config: Config, plan: FlowPlan, stages: tuple[str, ...]) -> None:
    """Refuses, before anything is started, what the wanted stages cannot do; for the run and for ``--dry-run``.

    Raises:
        ConfigError, ResourceError: see ``launch/preflight.py``.
    """
    if "train" in stages and not plan.run_complete:
        check_launch(config)
    elif "prepare" in stages and plan.manifest is None:
        requested_master(config.platform)


@dataclass
class Flow:
    """One execution of the wanted stages."""

    config: Config
    command: str  # repeats this execution
    say: Callable[[str], None]
    observer: Observer
    run_id: str | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _session_start: SessionStart | None = None

    @property
    def lake(self) -> Lake:
        return Lake.at(self.config.platform.storage.root)

    def run(self, stages: tuple[str, ...]) -> tuple[Manifest, str | None]:
        """The dataset and, unless only ``prepare`` was wanted, the run's id."""
        with self._stack:
            lake = self.lake
            plan = plan_flow(self.config, self.run_id, partial(self._begin_build, stages) if "prepare" in stages else None)
            check_flow(self.config, plan, stages)
            if plan.manifest is None and {"prepare", "train"} <= set(stages) and not self.config.platform.layout.automatic:
                # before hours of preparing for ranks that cannot start
                check_slots(self.spark(), self.config, self.observer.say)
            manifest = self._prepare(plan, lake, wanted="prepare" in stages)
            if stages == ("prepare",):
                return manifest, None
            run_id = self.run_id or default_run_id(self.config.recipe, manifest)
            if "train" in stages:
                self._train(plan, lake, manifest, run_id)
            if "report" in stages:
                self._report(lake, run_id)
            return manifest, run_id

    def spark(self) -> SparkSession:
        """The session, started when first asked for and stopped at the flow's end."""
        return self._start_spark().session()

    def _begin_build(self, stages: tuple[str, ...], dataset: PreparePlan) -> None:
        """The dataset will have to be built: Spark starts, unless what follows could not."""
        check_flow(self.config, FlowPlan(dataset, None, self.run_id, False, None), stages)
        self._start_spark()

    def _start_spark(self) -> SessionStart:
        """Lets Spark start while the flow goes on."""
        if self._session_start is None:
            self._session_start = self._stack.enter_context(SessionStart(self.config.platform, self.config.recipe.name))
        return self._session_start

    def _prepare(self, plan: FlowPlan, lake: Lake, *, wanted: bool) -> Manifest:
        if plan.manifest is not None:
            self.say(f"prepare: dataset {plan.manifest.name} {plan.manifest.version} is complete, nothing to do")
            return plan.manifest
        if not wanted:
            raise DataError(lake.store.place(lake.datasets(self.config.recipe.name)), "holds no dataset of this recipe and input",
                            "run the prepare job first")
        return prepare_planned(self.spark, plan.dataset, self.config.recipe, lake, self.say)

    def _train(self, plan: FlowPlan, lake: Lake, manifest: Manifest, run_id: str) -> None:
        if plan.run_complete:
            self.say(f"train: run {run_id} is complete, nothing to do")
            return
        spark = self.spark()
        try:
            with LiveLoader(lake, run_id):
                outcome = train(spark, self.config, lake, manifest, run_id, self.command, self.observer)
        except SparkringError:
            self._keep_metrics(lake, run_id)
            raise
        try:
            load_run(lake, run_id)
        except SparkringError:
            self.say(f"train: run {run_id} is complete, only its metrics are not in the tables yet; the report job loads them")
            raise
        if not outcome.fresh:
            self.say(f"train: run {run_id} is complete, nothing to do")

    def _keep_metrics(self, lake: Lake, run_id: str) -> None:
        """A failed run's metrics are worth as much as a good one's; a fault here must not hide why the run failed."""
        try:
            if lake.store.facts(lake.run(run_id).state) is not None:
                load_run(lake, run_id)
                write_report(lake, run_id)
        except SparkringError as error:
            self.say(f"train: metrics and report of the run are not whole: {error}")

    def _report(self, lake: Lake, run_id: str) -> None:
        run, state = lake.run(run_id), find_run(lake, run_id)
        report, ended = lake.store.facts(run.report), lake.store.facts(run.attempt_state(state.newest.number))
        if report is not None and ended is not None and report.modified_s >= ended.modified_s:
            self.say(f"report: {lake.store.place(run.report)} is complete, nothing to do")
        else:
            write_report(lake, run_id)


def own_run(config: Config) -> str | None:
    """The id of the recipe's own run, where its dataset is prepared and it has begun."""
    run_id = plan_flow(config, None).run_id
    lake = Lake.at(config.platform.storage.root)
    return run_id if run_id is not None and lake.store.facts(lake.run(run_id).state) is not None else None


def plan_report(storage: Storage, run_id: str | None) -> dict[str, str]:
    """Which run a report would be written of, the newest without an id, and where to.

    Raises:
        DataError: no such run.
    """
    lake = Lake.at(storage.root)
    state = find_run(lake, run_id)
    return {"run": f"{state.run_id} ({state.status})", "report": lake.store.place(lake.run(state.run_id).report)}


def report_run(storage: Storage, run_id: str | None) -> dict[str, Any]:
    """Writes the report of a run, the newest without an id, and returns its summary.

    Raises:
        DataError: no such run.
    """
    lake = Lake.at(storage.root)
    run_id = find_run(lake, run_id).run_id
    load_run(lake, run_id)  # what a driver that was killed had left to load
    return write_report(lake, run_id)
