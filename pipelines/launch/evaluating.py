"""An evaluation of a run's model, done by ranks as a training is.

Runs on: driver.
Takes:   a session and an ``EvaluationPlan``.
Gives:   ``evaluate_model``, after which ``result.json`` of the evaluation is there.
"""

from __future__ import annotations

import json
from dataclasses import replace

from pyspark.sql import SparkSession

from pipelines.errors import AlreadyRunningError
from pipelines.interrupts import interrupts_as_errors
from pipelines.lake.claims import claimed
from pipelines.launch.evaluation_plan import EvaluationPlan, check_code_as_trained
from pipelines.launch.execution import run_gang
from pipelines.launch.identity import next_attempt
from pipelines.launch.news import News
from pipelines.launch.observer import Guarded, Observer
from pipelines.launch.planning import attempt_plan
from pipelines.launch.preflight import check_cluster, check_shards_present
from pipelines.plan.run_plan import RunPlan


def evaluate_model(spark: SparkSession, plan: EvaluationPlan, observer: Observer) -> bool:
    """False where it had been done meanwhile.

    Raises:
        SparkringError: see ``errors.py``; no rank is left behind, and nothing is published.
    """
    lake, folder, observer = plan.ranks.lake, plan.folder, Guarded(observer)
    refusal = AlreadyRunningError(f"evaluation of the {plan}", "another process is at it", "wait for it")
    with claimed(lake.store, folder.claim, refusal) as claim:
        if plan.complete:
            return False
        check_shards_present(lake, plan.ranks.manifest)
        planned = attempt_plan(plan.ranks, spark, observer.say)
        planned = replace(planned, cut_is_measured=False)  # what layers cost as they train is not measured here
        check_code_as_trained(plan.ranks.earlier, planned.model_code)
        config = plan.ranks.config.with_layout(planned.layout)
        check_cluster(spark, config, lake, observer.say)
        number = begin_evaluation(plan, planned)
        news = News(folder.live(number), planned.layout.num_ranks)
        with interrupts_as_errors():
            run_gang(spark, config.platform, folder, number, planned, news, observer, claim)
        folder.live(number).keep()
        claim.check()
        lake.store.put(folder.result, lake.store.read(folder.findings(number)))
        return True


def begin_evaluation(plan: EvaluationPlan, planned: RunPlan) -> int:
    """The number of the next attempt at it, whose folder holds all that its ranks read."""
    folder, store = plan.folder, plan.ranks.lake.store
    number = next_attempt(folder)
    folder.live(number).make()
    store.put(folder.order, json.dumps(plan.content, indent=2))
    store.put(folder.config(number), plan.ranks.config.with_layout(planned.layout).to_json())
    planned.save(folder, number)
    return number
