"""Border 2 into the tables ``runs``, ``steps``, ``rank_steps`` and ``evaluations``.

Runs on: driver.
Takes:   ``runs/<run_id>``: the states of run and attempts, the ranks' record files, finished or still growing.
Gives:   the run's part of the tables, each (run, step, rank) exactly once, however often a load is killed and repeated.

It needs no slot of the cluster: a Spark job would wait behind the ranks, which hold all slots, and would make the
relaunch of a gang wait. Only lines that came since the last load are read (``parts.py`` keeps the cursor), and no rows.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipelines.errors import AlreadyRunningError, DataError
from pipelines.lake.claims import claimed
from pipelines.lake.paths import Lake
from pipelines.lake.runs import RunState, current_state
from pipelines.lake.schemas import arrow_schema
from pipelines.track.attempt_tables import ATTEMPT_TABLES, AttemptTables
from pipelines.track.evaluated import EVALUATION_TABLES, load_evaluations
from pipelines.track.figures import RunTotals, newest_validation_loss
from pipelines.track.parts import ensure_columns, write_one_row

LOADED_TABLES = ("runs", *ATTEMPT_TABLES)
CLAIM_PATIENCE_S = 60.0


def load_run(lake: Lake, run_id: str) -> None:
    """Brings the tables up to date with what the run has recorded.

    Raises:
        DataError: no such run, or a whole line of a record file is not a record (the row in ``runs`` is still written).
        StorageError: the tables cannot be written.
        AlreadyRunningError: another process has been loading the same run for a minute.
    """
    run = lake.run(run_id)
    if run.store.facts(run.state) is None:
        raise DataError(f"run {run_id}", f"there is no {run.store.place(run.state)}",
                        "see the runs folder for the runs that there are")
    refusal = AlreadyRunningError(f"run {run_id}", "another process is loading its metrics", "wait for it, or end it")
    with claimed(run.store, run.load_claim, refusal, CLAIM_PATIENCE_S) as claim:
        state = current_state(run)  # inside the claim: a loader that waited must not use an old one
        if state is None:
            raise DataError(f"run {run_id}", f"{run.store.place(run.state)} vanished")
        for table in {*LOADED_TABLES, *EVALUATION_TABLES}:
            ensure_columns(lake, table)
        load_evaluations(lake, run_id)
        try:
            AttemptTables(lake, run, state, claim).load()
        finally:
            claim.check()
            write_one_row(lake.store, f"{lake.table('runs')}/{run_id}.parquet", _run_row(lake, state))


def _run_row(lake: Lake, state: RunState) -> pa.Table:
    """The run as a whole: what the driver knows of it and its newest attempt, and figures from the rows loaded so far."""
    newest = state.newest
    steps = RunTotals.of(lake, state.run_id)
    newest_s = newest.ended_s if newest.ended_s is not None else steps.newest_s
    facts: dict[str, Any] = {
        "run_id": state.run_id, "recipe_name": state.recipe_name, "recipe_hash": state.recipe_hash,
        "dataset_name": state.dataset_name, "dataset_version": state.dataset_version, "status": state.status,
        "exit_code": newest.exit_code, "error": newest.error, "num_replicas": newest.num_replicas,
        "num_segments": newest.num_segments, "device": newest.device, "precision": state.precision,
        "parameters": state.parameters, "planned_steps": state.planned_steps, "last_step": steps.last_step,
        "attempts": len(state.attempts), "train_loss": steps.last_loss,
        "validation_loss": newest_validation_loss(lake, state.run_id),
        "unit": state.unit, "units": steps.units, "units_per_s": steps.steady_units_per_s,
        "started": _timestamp(newest.started_s or None), "ended": _timestamp(newest.ended_s),
        "seconds": newest_s - newest.started_s if newest_s and newest.started_s else None,
        "placement": list(newest.placement), "command": newest.command, "environment": json.dumps(newest.environment),
    }
    schema = arrow_schema("runs")
    return pa.table([pa.array([facts[field.name]], field.type) for field in schema], schema=schema)


def _timestamp(time_s: float | None) -> datetime | None:
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC)
