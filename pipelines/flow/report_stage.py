"""The stage report: a run's tables brought up to date, its page, its summary. Needs no Spark.

Runs on: driver.
Takes:   the run's id.
Gives:   the summary, of which the page is written where it does not show it already.
"""

from __future__ import annotations

from typing import Any

from pipelines.config.load import Config
from pipelines.config.platform import Storage
from pipelines.flow.stage import Job, Planned
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.launch.identity import default_run_id
from pipelines.prepare.prepare import plan_prepare
from pipelines.track import find_run, load_run, write_report


def plan_page(job: Job, run_id: str) -> Planned:
    return Planned(run_id, {"report": report_lines(job.config.platform.storage, run_id)["report"]})


def write_page(job: Job, run_id: str) -> dict[str, Any]:
    summary, fresh = report_run(job.config.platform.storage, run_id)
    if not fresh:
        job.say(f"report: {summary['paths']['report']} is complete, nothing to do")
    return summary


def report_lines(storage: Storage, run_id: str | None) -> dict[str, str]:
    """Which run a report would be of, the newest without an id, and where it would lie.

    Raises:
        DataError: no such run.
    """
    lake = Lake.at(storage.address)
    state = find_run(lake, run_id)
    return {"run": f"{state.run_id} ({state.status})", "report": lake.store.place(lake.run(state.run_id).report)}


def report_run(storage: Storage, run_id: str | None) -> tuple[dict[str, Any], bool]:
    """The summary of a run, the newest without an id, and whether its page had to be written.

    Raises:
        DataError: no such run.
    """
    lake = Lake.at(storage.address)
    run_id = find_run(lake, run_id).run_id
    load_run(lake, run_id)  # what a driver that was killed had left to load
    return write_report(lake, run_id)


def own_run(config: Config) -> str | None:
    """The id of the recipe's own run, where its dataset is prepared and it has begun."""
    lake = Lake.at(config.platform.storage.address)
    plan = plan_prepare(config.recipe, lake)
    if plan.version is None or not plan.exists:
        return None
    run_id = default_run_id(config.recipe, Manifest.load(lake.store.below(lake.dataset(plan.name, plan.version))))
    return run_id if lake.store.facts(lake.run(run_id).state) is not None else None
