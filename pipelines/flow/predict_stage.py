"""The stage predict: a run's model over rows, its answers in a folder that Spark reads as a table.

Runs on: driver.
Takes:   the run's id, an input, an output folder.
Gives:   the totals of the output; what has been answered before is not answered again.
"""

from __future__ import annotations

from typing import Any

from pipelines.config.load import Config
from pipelines.config.platform import Platform
from pipelines.config.predictions import Predict
from pipelines.flow.stage import Job, Planned
from pipelines.lake.paths import Lake
from pipelines.predict.batch_predictions import predict_planned
from pipelines.predict.predict_plan import PredictPlan, PredictRequest, plan_predict
from pipelines.spark.session import requested_master
from pipelines.track import find_run


def predict_request(model: str, given: str, output: str, settings: Predict) -> PredictRequest:
    """What the stage is asked for: which model (``best`` or ``last``), its input, its output."""
    return PredictRequest(model, given, output, settings)


def run_config(platform: Platform, run_id: str) -> Config:
    """The recipe that a run was trained by, on this platform.

    Raises:
        ConfigError: the id is no name. DataError: there is no such run.
    """
    lake = Lake.at(platform.storage.address)
    run = lake.run(run_id)
    state = find_run(lake, run_id)
    return Config(Config.from_json(lake.store.read(run.config(state.newest.number)).decode()).recipe, platform)


def plan_predictions(job: Job) -> Planned:
    """Complete where the output holds the predictions of this model, input and settings."""
    request: PredictRequest = job.request
    plan = plan_predict(job.lake, str(job.run_id), request)
    shown = {"model": f"{plan.contract.folder} ({plan.contract.task})", "predictions": request.output}
    if plan.look is None:
        return Planned(plan, shown | {"input": f"{request.input} (known once Spark has listed it)"})
    shown["input"] = f"{plan.look.path}: {plan.look.files:,} files ({plan.look.format}), {plan.look.bytes:,} bytes"
    totals = plan.output.totals(plan.identity(plan.look))
    shown["predictions"] += " (complete, would be skipped)" if totals is not None else " (would be made)"
    return Planned(plan, shown, totals, f"predictions in {plan.output.path}")


def check_predictions(job: Job) -> None:
    """Raises ConfigError where there is no master."""
    requested_master(job.config.platform)


def make_predictions(job: Job, plan: PredictPlan) -> dict[str, Any]:
    return predict_planned(job.spark(), plan, job.lake.root, job.say)


def prediction_lines(totals: dict[str, Any], output: str) -> dict[str, str]:
    """Totals for people."""
    return {"folder": output, "rows": f"{totals['rows']:,}", "predicted": f"{totals['predicted']:,}",
            **{f"not predicted: {reason}": f"{number:,}" for reason, number in totals["reasons"].items()}}
