"""The stage train: a dataset to a trained model, its records in the tables.

Runs on: driver.
Takes:   the dataset's manifest.
Gives:   the run's id.
"""

from __future__ import annotations

from pipelines.config.platform import Layout, Platform
from pipelines.errors import SparkringError
from pipelines.flow.stage import Job, Planned
from pipelines.lake.manifest import Manifest
from pipelines.launch.planning import TrainPlan, plan_train
from pipelines.launch.preflight import check_cluster, check_launch, check_training_launch
from pipelines.launch.train import train
from pipelines.plan.run_plan import RunPlan
from pipelines.track import LiveLoader, load_run, write_report


def plan_run_of(job: Job, manifest: Manifest) -> Planned:
    """Complete where the run of recipe and data is."""
    plan = plan_train(job.config, job.lake, manifest, job.run_id)
    shown = {"run": f"{plan.run_id} ({'complete, would be skipped' if plan.complete else 'would be trained'})"}
    shown |= {"steps": "known once the slots are"} if plan.attempt is None else attempt_lines(plan.attempt, job.config.platform)
    return Planned(plan, shown, plan.run_id if plan.complete else None, f"run {plan.run_id}")


def layout_line(platform: Platform, layout: Layout) -> str:
    """A layout in words."""
    numbers = ("auto, chosen once dataset and slots are known" if layout.automatic
               else f"{layout.num_replicas} replicas x {layout.num_segments} segments")
    return (f"{numbers}, {layout.threads_per_rank} threads each, {layout.device}, on "
            f"{platform.spark.master or 'what spark-submit was given'}")


def attempt_lines(plan: RunPlan, platform: Platform) -> dict[str, str]:
    """What an attempt would do, for people."""
    lines = {"layout": layout_line(platform, plan.layout)}
    if plan.choice is not None:
        lines["chosen"] = "\n    ".join(plan.choice.lines())
    if plan.layout.num_segments > 1:
        measured = ("" if plan.profile is None else " (a forecast: the ranks measure what each layer costs)"
                    if plan.cut_is_measured else " (by what each layer was measured to cost)")
        lines["cut"] = f"layers {' + '.join(map(str, plan.split.counts))}, {plan.split.schedule}{measured}"
    return lines | {
        "parameters": f"{plan.parameters:,}",
        "steps": f"{plan.steps:,} of {plan.units_per_step:,} {plan.unit}; {plan.steps_per_epoch:,} are an epoch",
        "memory per rank": f"about {plan.memory_bytes / 2**20:,.0f} MiB at its peak"}


def check_ranks(job: Job) -> None:
    check_launch(job.config)


def check_training(job: Job) -> None:
    check_training_launch(job.config)


def admit_ranks(job: Job) -> None:
    """Before hours of preparing for ranks that cannot start."""
    if not job.config.platform.layout.automatic:
        check_cluster(job.spark(), job.config, job.lake, job.observer.say)


def train_run(job: Job, plan: TrainPlan) -> str:
    lake, run_id = plan.lake, plan.run_id
    spark = job.spark()
    try:
        with LiveLoader(lake, run_id):
            outcome = train(spark, plan, job.command, job.observer)
    except SparkringError:
        _keep_metrics(job, plan)
        raise
    try:
        load_run(lake, run_id)
    except SparkringError:
        job.say(f"train: run {run_id} is complete, only its metrics are not in the tables yet; the report job loads them")
        raise
    if not outcome.fresh:
        job.say(f"train: run {run_id} is complete, nothing to do")
    return run_id


def _keep_metrics(job: Job, plan: TrainPlan) -> None:
    """A failed run's metrics are worth as much as a good one's; a fault here must not hide why the run failed."""
    try:
        if plan.lake.store.facts(plan.run.state) is not None:
            load_run(plan.lake, plan.run_id)
            write_report(plan.lake, plan.run_id)
    except SparkringError as error:
        job.say(f"train: metrics and report of the run are not whole: {error}")
