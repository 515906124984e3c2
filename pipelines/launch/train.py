"""The train stage: a published dataset in, a trained model and the ranks' records out.

Runs on: driver.
Takes:   session, config, dataset, lake.
Gives:   ``TrainOutcome``; every start and end of an attempt is in its ``state.json``.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace

from pyspark.sql import SparkSession

from pipelines.config.load import Config
from pipelines.errors import DataError, InterruptedRunError, ResourceError, SparkringError, StalledError
from pipelines.interrupts import interrupts_as_errors
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake, RunFolder
from pipelines.lake.runs import AttemptState, RunState
from pipelines.launch.diagnosis import frozen
from pipelines.launch.environment import environment
from pipelines.launch.gang import Gang
from pipelines.launch.identity import check_run_id, claim_run, next_attempt, training_hash
from pipelines.launch.news import News
from pipelines.launch.observer import Guarded, Observer
from pipelines.launch.preflight import check_slots
from pipelines.launch.rank_process import GangOrder, read_exits
from pipelines.launch.rendezvous import Rendezvous
from pipelines.launch.room import chosen_layout, room
from pipelines.launch.watch import watch
from pipelines.models.facts import model_facts
from pipelines.plan.run_plan import RunPlan, plan_run


@dataclass(frozen=True)
class TrainOutcome:
    """``fresh`` is false when the run had been completed before and nothing was done."""

    state: RunState
    fresh: bool


def train(spark: SparkSession, config: Config, lake: Lake, manifest: Manifest, run_id: str, command: str,
          observer: Observer) -> TrainOutcome:
    """Trains unless this run is complete.

    Raises:
        SparkringError: see ``errors.py``; the run's state says the same, and no rank is left behind.
    """
    run, observer = lake.run(run_id), Guarded(observer)
    with claim_run(run, run_id):
        earlier = check_run_id(run, config.recipe, manifest, ours=True)
        if earlier is not None and earlier.status == "completed":
            return TrainOutcome(earlier, fresh=False)
        check_shards_present(lake, manifest)
        if config.platform.layout.automatic:
            choice = chosen_layout(config, manifest, *room(spark, config, observer.say))
            observer.layout_chosen(choice)
            config = config.with_layout(choice.layout)
        check_slots(spark, config, observer.say)
        plan = plan_run(config, manifest, model_facts(config.recipe, manifest), run_id, lake)
        attempt = _begun(run, config, plan, command)
        state = earlier or _run_state(config, manifest, plan)
        if earlier is None:
            state.save(run)  # behind the attempt's files: a run that is there has an attempt
        news = News(run.live(attempt.number), attempt.num_ranks)
        failure: SparkringError | None = None
        try:
            with interrupts_as_errors():
                _run_gang(spark, config, run, attempt.number, plan, news, observer)
        except SparkringError as error:
            failure = error
        attempt = _ended(attempt, news, failure)
        attempt.save(run)
        if isinstance(failure, InterruptedRunError) and attempt.status == "completed":
            raise InterruptedRunError(failure.place, "the run was asked to stop when its ranks had just completed it",
                                      "the same command again reports it") from failure
        if failure is not None and attempt.status != "completed":
            raise failure
        return TrainOutcome(replace(state, attempts=(*state.attempts, attempt)), fresh=True)


def _begun(run: RunFolder, config: Config, plan: RunPlan, command: str) -> AttemptState:
    """The next attempt, with all that its ranks read; its state comes last and makes it one."""
    number, layout = next_attempt(run), config.platform.layout
    run.live(number).make()
    run.store.put(run.config(number), config.to_json())
    plan.save(run, number)
    attempt = AttemptState(number=number, num_replicas=layout.num_replicas, num_segments=layout.num_segments,
                           device=layout.device, started_s=time.time(), command=command, environment=environment())
    attempt.save(run)
    return attempt


def _ended(attempt: AttemptState, news: News, error: SparkringError | None) -> AttemptState:
    """How the attempt stands now that its gang is gone: what every rank has recorded as completed is complete."""
    for _ in news.new_records():  # those of the last moment
        pass
    attempt = attempt.changed(ended_s=time.time(), placement=tuple(start["host"] for start in news.starts() if news.met))
    if error is None or news.completed:
        return attempt.changed(status="completed", exit_code=0)
    status = "interrupted" if isinstance(error, InterruptedRunError) else "failed"
    return attempt.changed(status=status, exit_code=error.exit_code, error=str(error))


def check_shards_present(lake: Lake, manifest: Manifest) -> None:
    """Raises DataError for a shard that is missing or of another size; contents are checked as the ranks read them."""
    store, dataset = lake.store, lake.dataset(manifest.name, manifest.version)
    for shards in manifest.splits.values():
        for shard in shards:
            facts = store.facts(f"{dataset}/{shard.path}")
            if facts is None or facts.bytes != shard.bytes:
                found = "is missing" if facts is None else f"has {facts.bytes} bytes, the manifest says {shard.bytes}"
                raise DataError(store.place(f"{dataset}/{shard.path}"), found,
                                f"restore the file, or remove {store.place(dataset)} and prepare again")


def _run_gang(spark: SparkSession, config: Config, run: RunFolder, attempt: int, plan: RunPlan, news: News,
              observer: Observer) -> None:
    """Returns when all ranks ended well."""
    layout, launch = config.platform.layout, config.platform.launch
    num_ranks = layout.num_replicas * layout.num_segments
    address = driver_address(spark)
    with Rendezvous(address, layout.num_replicas, layout.num_segments, launch.rendezvous_port) as rendezvous:
        gang = Gang(spark, GangOrder(
            root=str(run.lake.root), run_id=run.run_id, attempt=attempt, num_segments=layout.num_segments,
            threads_per_rank=layout.threads_per_rank, driver_address=address, rendezvous_ports=rendezvous.ports,
            rendezvous_key=rendezvous.key, device=layout.device,
            network_interface=launch.network_interface, meet_timeout_s=launch.start_timeout_s,
            cycle_time_ms=plan.cycle_time_ms), num_ranks)
        gang.start()
        try:
            watch(gang, rendezvous, run.live(attempt), news, launch, plan, observer)
        except StalledError as error:
            gang.stop(launch.stop_timeout_s)  # their Spark tasks tell in which state they found the ranks
            found = frozen(read_exits(run.live(attempt), num_ranks))
            if not found:
                raise
            raise StalledError(error.place, f"{error.problem}; {', '.join(found)}", error.remedy) from error
        finally:
            if not gang.stop(launch.stop_timeout_s):
                observer.say(f"the ranks were not seen to end within {launch.stop_timeout_s:g} s (launch.stop_timeout_s)")


def driver_address(spark: SparkSession) -> str:
    """The driver's numeric address, as executors reach it.

    Raises:
        ResourceError: its name has none.
    """
    name = str(spark.sparkContext.getConf().get("spark.driver.host", "127.0.0.1"))
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        raise ResourceError("spark.driver_host", f"{name} has no address here ({error.strerror or error})",
                            "set it to the driver's numeric address, or add the name to /etc/hosts") from error


def _run_state(config: Config, manifest: Manifest, plan: RunPlan) -> RunState:
    return RunState(
        run_id=plan.run_id, recipe_name=config.recipe.name,
        recipe_hash=training_hash(config.recipe, manifest.version, plan.model_code), model_code=plan.model_code,
        dataset_name=manifest.name, dataset_version=manifest.version, unit=plan.unit,
        precision=config.recipe.train.precision, planned_steps=plan.steps, parameters=plan.parameters)
