"""The stage evaluate: a run's model on a split of its own dataset, or of another recipe's; tables and report brought up to date.

Runs on: driver.
Takes:   the job's ``EvaluationWish``.
Gives:   the run's summary, which holds what was found; ``evaluation_config`` of a job that names a run and no recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.config import Config, Platform, Recipe
from pipelines.errors import DataError
from pipelines.flow.predict_stage import run_config
from pipelines.flow.report_stage import report_run
from pipelines.flow.stage import Job, Planned
from pipelines.flow.train_stage import attempt_lines
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.launch.evaluating import evaluate_model
from pipelines.launch.evaluation_plan import EvaluationPlan, plan_evaluation
from pipelines.prepare.prepare import plan_prepare
from pipelines.track import find_run, load_run


@dataclass(frozen=True)
class EvaluationWish:
    """What the job evaluate was asked for."""

    model: str = "best"
    split: str = "validation"
    dataset: Recipe | None = None  # whose data it is; None: the run's own


def plan_evaluation_of(job: Job) -> Planned:
    """What is to be evaluated; where it was before, ``run_evaluation`` only brings tables and report up to date."""
    wish: EvaluationWish = job.request
    lake = job.lake
    state = find_run(lake, job.run_id)
    if wish.dataset is None:
        manifest = Manifest.load(lake.store.below(lake.dataset(state.dataset_name, state.dataset_version)))
    else:
        manifest = dataset_of(wish.dataset, lake)
    plan = plan_evaluation(job.config, lake, state, manifest, wish.model, wish.split)
    shown = {"evaluation": f"{plan} ({'complete, would be skipped' if plan.complete else 'would be done'})",
             "dataset": f"{manifest.name} {manifest.version}, {manifest.rows(wish.split):,} rows"}
    if plan.ranks.attempt is not None:
        lines = attempt_lines(plan.ranks.attempt, job.config.platform)
        shown |= {name: lines[name] for name in ("layout", "parameters") if name in lines}
    return Planned(plan, shown)


def dataset_of(recipe: Recipe, lake: Lake) -> Manifest:
    """The version that a recipe's input makes.

    Raises:
        DataError: it is not prepared.
    """
    plan = plan_prepare(recipe, lake)
    if plan.version is None or not plan.exists:
        raise DataError(f"--dataset {recipe.name}", f"is not prepared in {lake.store.place(lake.datasets(recipe.name))}",
                        "run the prepare job with that recipe first")
    return Manifest.load(lake.store.below(lake.dataset(plan.name, plan.version)))


def run_evaluation(job: Job, plan: EvaluationPlan) -> dict[str, Any]:
    if plan.complete or not evaluate_model(job.spark(), plan, job.observer):
        job.say(f"evaluate: the {plan} is complete, nothing to do")
    run_id = plan.ranks.run_id
    load_run(job.lake, run_id)  # what a driver that was killed had left to load, too
    return report_run(job.config.platform.storage, run_id)[0]


def evaluation_config(platform: Platform, run_id: str | None) -> tuple[Config, str]:
    """A run's recipe on a platform, and its id; without one it is the newest run.

    Raises:
        DataError: no such run.
    """
    run_id = find_run(Lake.at(platform.storage.address), run_id).run_id
    return run_config(platform, run_id), run_id
