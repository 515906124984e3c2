"""Border 2 into the tables ``runs``, ``steps``, ``rank_steps`` and ``evaluations``.

Runs on: driver.
Takes:   ``runs/<run_id>``: the states of run and attempts, the ranks' record files, finished or still growing.
Gives:   the run's part of the tables, each (run, step, rank) exactly once, however often a load is killed and repeated.

It needs no slot of the cluster: a Spark job would wait behind the ranks, which hold all slots, and would make the
relaunch of a gang wait. Only lines that came since the last load are read (``parts.py`` keeps the cursor).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import AlreadyRunningError, DataError
from pipelines.lake.claims import Claim, claimed
from pipelines.lake.paths import Lake, RunFolder
from pipelines.lake.runs import AttemptState, RunState, current_state
from pipelines.lake.schemas import arrow_schema
from pipelines.track.evaluated import EVALUATION_TABLES, load_evaluations
from pipelines.track.figures import evaluations_in_order
from pipelines.track.parts import (
    TablePart,
    append_rows,
    ensure_columns,
    open_part,
    part_keys,
    read_part,
    read_rows,
    take_back,
    write_one_row,
)
from pipelines.track.record_rows import new_rows, to_table
from pipelines.track.totals import TOTALLED, RunTotals, StepTotals, totals_up_to

LOADED_TABLES = ("runs", "steps", "rank_steps", "evaluations")
NO_LIMIT = 2**31 - 1  # of an attempt whose steps are all kept
READ_BYTES = 32 * 1024**2  # of records held at once, over all ranks
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
            for attempt in state.attempts:  # oldest first: no reader sees a step of two attempts
                for table in ("steps", "rank_steps", "evaluations"):
                    _load_attempt(lake, run, table, state, attempt, claim)
        finally:
            claim.check()
            write_one_row(lake.store, f"{lake.table('runs')}/{run_id}.parquet", _run_row(lake, state))


def kept_steps(state: RunState, attempt: AttemptState) -> tuple[int, int]:
    """First and last step of an attempt that a restart did not take back: later attempts make the rest again."""
    later = [each.start_step for each in state.attempts if each.number > attempt.number]
    return (attempt.start_step + 1 if attempt is not state.attempts[0] else 0), min(later, default=NO_LIMIT)


def _load_attempt(lake: Lake, run: RunFolder, table: str, state: RunState, attempt: AttemptState, claim: Claim) -> None:
    """Takes back what a restart made void, then adds the new lines, a bounded amount at a time."""
    first, last = kept_steps(state, attempt)
    number = attempt.number
    evaluated = _evaluated_before(lake, state, number) if table == "evaluations" else set()
    if table == "evaluations":
        first = attempt.start_step  # it may make up for an evaluation that was missed
    keys = part_keys(lake, table, state.run_id, number)
    beyond = _beyond(lake, keys, last)
    totals = totals_up_to(lake, keys[:len(keys) - len(beyond)]) if table == "steps" else None
    if beyond:
        claim.check()
        _take_back(lake, beyond, last, totals)
    files = run.live(number).records()
    if table != "rank_steps":
        files = {rank: path for rank, path in files.items() if rank == 0}  # whole-job figures are in rank 0's records
    cursor = TablePart.of(lake.store, keys[-1]).cursor if keys else {}
    while files:
        rows, moved = [], dict(cursor)
        for rank, path in files.items():
            found, moved[path.name] = new_rows(table, state.run_id, number, rank, path, cursor.get(path.name, 0),
                                               READ_BYTES // len(files))
            rows += [row for row in found
                     if first <= row["step"] <= last and (row["step"], row.get("split")) not in evaluated]
        if moved == cursor:
            return
        added = to_table(table, rows)
        if totals is not None:
            totals.add(added)
        claim.check()
        append_rows(lake.store, open_part(lake, table, state.run_id, number), added, moved,
                    None if totals is None else totals.content())
        cursor = moved


def _beyond(lake: Lake, keys: list[str], last: int) -> list[TablePart]:
    """An attempt's parts from the first on that has steps above ``last``. Of an attempt that keeps all, none is looked at."""
    parts = [] if last == NO_LIMIT else [TablePart.of(lake.store, key) for key in keys]
    return parts[next((i for i, part in enumerate(parts) if part.last_step > last), len(parts)):]


def _take_back(lake: Lake, parts: list[TablePart], last: int, totals: StepTotals | None) -> None:
    """The newest part first: as long as the first one has steps above ``last``, the next load does all of it again."""
    left: list[dict[str, Any] | None] = []
    for part in parts:
        if totals is not None:
            rows = read_part(lake, "steps", part.key, TOTALLED)
            totals.add(rows.filter(pc.less_equal(rows["step"], last)))
        left.append(None if totals is None else totals.content())
    for part, content in reversed([*zip(parts, left, strict=True)]):
        take_back(lake.store, part, last, content)


def _evaluated_before(lake: Lake, state: RunState, attempt: int) -> set[tuple[int, str]]:
    """(step, split) of the evaluations of earlier attempts; those have ended, and their rows are loaded."""
    rows = read_rows(lake, "evaluations", state.run_id, ["attempt", "step", "split"]).to_pylist()
    return {(row["step"], row["split"]) for row in rows if row["attempt"] < attempt}


def _run_row(lake: Lake, state: RunState) -> pa.Table:
    """The run as a whole: what the driver knows of it and its newest attempt, and figures from the rows loaded so far."""
    newest = state.newest
    steps = RunTotals.of(lake, state.run_id)
    evaluations = evaluations_in_order(lake, state.run_id)
    newest_s = newest.ended_s if newest.ended_s is not None else steps.newest_s
    facts: dict[str, Any] = {
        "run_id": state.run_id, "recipe_name": state.recipe_name, "recipe_hash": state.recipe_hash,
        "dataset_name": state.dataset_name, "dataset_version": state.dataset_version, "status": state.status,
        "exit_code": newest.exit_code, "error": newest.error, "num_replicas": newest.num_replicas,
        "num_segments": newest.num_segments, "device": newest.device, "precision": state.precision,
        "parameters": state.parameters, "planned_steps": state.planned_steps, "last_step": steps.last_step,
        "attempts": len(state.attempts), "train_loss": steps.last_loss,
        "validation_loss": evaluations[-1]["loss"] if evaluations else None,
        "unit": state.unit, "units": steps.units, "units_per_s": steps.steady_units_per_s,
        "started": _timestamp(newest.started_s or None), "ended": _timestamp(newest.ended_s),
        "seconds": newest_s - newest.started_s if newest_s and newest.started_s else None,
        "placement": list(newest.placement), "command": newest.command, "environment": json.dumps(newest.environment),
    }
    schema = arrow_schema("runs")
    return pa.table([pa.array([facts[field.name]], field.type) for field in schema], schema=schema)


def _timestamp(time_s: float | None) -> datetime | None:
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC)
