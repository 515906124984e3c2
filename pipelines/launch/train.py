"""The train stage: a planned run in, a trained model and the ranks' records out.

Runs on: driver.
Takes:   session and ``TrainPlan``.
Gives:   ``TrainOutcome``; every start and end of an attempt is in its ``state.json``.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import SparkSession

from pipelines.errors import InterruptedRunError, SparkringError
from pipelines.interrupts import interrupts_as_errors
from pipelines.lake.runs import RunState
from pipelines.launch.attempt import begin_attempt, end_attempt
from pipelines.launch.execution import run_gang
from pipelines.launch.identity import check_run_id, claim_run
from pipelines.launch.news import News
from pipelines.launch.observer import Guarded, Observer
from pipelines.launch.planning import TrainPlan, attempt_plan
from pipelines.launch.preflight import check_cluster, check_shards_present


@dataclass(frozen=True)
class TrainOutcome:
    """``fresh`` is false when the run had been completed before and nothing was done."""

    state: RunState
    fresh: bool


def train(spark: SparkSession, plan: TrainPlan, command: str, observer: Observer) -> TrainOutcome:
    """Trains unless this run is complete.

    Raises:
        SparkringError: see ``errors.py``; the run's state says the same, and no rank is left behind.
    """
    run, config, manifest, observer = plan.run, plan.config, plan.manifest, Guarded(observer)
    with claim_run(run, plan.run_id) as claim:
        earlier = check_run_id(run, config.recipe, manifest, ours=True)  # it may have ended while we waited for the claim
        if earlier is not None and earlier.status == "completed":
            return TrainOutcome(earlier, fresh=False)
        check_shards_present(plan.lake, manifest)
        planned = attempt_plan(plan, spark, observer.say)
        if planned.choice is not None:
            observer.layout_chosen(planned.choice)
        check_cluster(spark, config.with_layout(planned.layout), plan.lake, observer.say)
        claim.check()
        state = begin_attempt(plan, planned, command, earlier)
        news = News(run.live(state.newest.number), planned.layout.num_ranks)
        failure: SparkringError | None = None
        try:
            with interrupts_as_errors():
                run_gang(spark, config.platform, run, state.newest.number, planned, news, observer, claim)
        except SparkringError as error:
            failure = error
        claim.check()
        state = end_attempt(run, state, news, failure)
        if isinstance(failure, InterruptedRunError) and state.status == "completed":
            raise InterruptedRunError(failure.place, "the run was asked to stop when its ranks had just completed it",
                                      "the same command again reports it") from failure
        if failure is not None and state.status != "completed":
            raise failure
        return TrainOutcome(state, fresh=True)
