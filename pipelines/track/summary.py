"""One run in numbers: what the report page shows, what ``report --json`` prints, what the console says at the end.

Runs on: driver.
Takes:   the run's rows in the tables (``load_run`` brings them up to date), its state, its dataset's manifest.
Gives:   a dict of plain JSON values; figures that there are none of are None. Needs neither Spark nor torch.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.tables.manifest import Manifest
from pipelines.tables.paths import TABLE_NAMES, Lake
from pipelines.tables.state import RunState, current_state
from pipelines.track.figures import STEP_COLUMNS, Steps, evaluations_in_order
from pipelines.track.parts import read_rows
from pipelines.track.pipeline import pipeline_of
from pipelines.track.rank_records import last_sample

TIME_PARTS = ("compute", "communication", "data_wait")  # what is left of a step's seconds is "other"


def summarize(lake: Lake, run_id: str | None = None) -> dict[str, Any]:
    """The run's summary; the newest run's where no id is given.

    Raises:
        DataError: no such run (the message names those there are).
    """
    state = find_run(lake, run_id)
    steps = Steps.of(read_rows(lake, "steps", state.run_id, STEP_COLUMNS))
    evaluations = evaluations_in_order(lake, state.run_id)
    dataset = _dataset(lake, state)
    ranks = _ranks(lake, state)
    newest_s = state.ended_s if state.ended_s is not None else steps.newest_s
    return {
        "run_id": state.run_id,
        "status": state.status,
        "exit_code": state.exit_code,
        "error": state.error,
        "started": _utc(state.started_s or None),
        "ended": _utc(state.ended_s),
        "seconds": round(newest_s - state.started_s, 3) if newest_s and state.started_s else None,
        "recipe": {"name": state.recipe_name, "hash": state.recipe_hash},
        "dataset": dataset,
        "layout": {"num_replicas": state.num_replicas, "num_segments": state.num_segments,
                   "num_ranks": state.num_replicas * state.num_segments, "device": state.device,
                   "precision": state.precision, "placement": list(state.placement)},
        "parameters": state.parameters,
        "steps": {"planned": state.planned_steps, "done": steps.last_step, "attempts": len(state.attempt_start_steps),
                  "stopped_early": state.status == "completed" and (steps.last_step or 0) < state.planned_steps,
                  "attempt_start_steps": list(state.attempt_start_steps)},
        "loss": _losses(steps, evaluations, dataset),
        "throughput": {"tokens": steps.tokens, "tokens_per_s": steps.steady_tokens_per_s},
        "time_share": time_shares(ranks),
        "ranks": ranks,
        "pipeline": pipeline_of(lake.run(state.run_id), state),
        "evaluations": evaluations,
        "sample": _sample(lake, state),
        "environment": state.environment,
        "command": state.command,
        "paths": _paths(lake, state),
    }


def known_runs(lake: Lake) -> list[str]:
    """Ids of all runs in the lake, the newest last."""
    found = sorted((path.stat().st_mtime, path.parent.name) for path in lake.runs().glob("*/state.json"))
    return [run_id for _, run_id in found]


def find_run(lake: Lake, run_id: str | None) -> RunState:
    """The state of the named run, or of the run that was started last.

    Raises:
        DataError: no such run.
    """
    known = known_runs(lake)
    if not known:
        raise DataError(str(lake.runs()), "there is no run yet",
                        "run the train job first, or give the platform of another lake")
    if run_id is None:
        states = [state for state in (current_state(lake.run(each)) for each in known) if state is not None]
        return max(states, key=lambda state: state.started_s)
    state = current_state(lake.run(run_id)) if run_id in known else None
    if state is None:
        close = difflib.get_close_matches(run_id, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        shown = ", ".join(known[-10:]) + (f" and {len(known) - 10} older ones" if len(known) > 10 else "")
        raise DataError(f"run {run_id}", f"there is no such run in {lake.runs()}", f"{hint}there are: {shown}")
    return state


def time_shares(ranks: list[dict[str, Any]]) -> dict[str, float] | None:
    """Share of the ranks' time in each part of a step: over all steps and ranks together, summing to 1."""
    seconds = sum(rank["seconds"] for rank in ranks)
    if seconds <= 0:
        return None
    shares = {part: sum(rank[f"{part}_s"] for rank in ranks) / seconds for part in TIME_PARTS}
    return {**shares, "other": max(0.0, 1.0 - sum(shares.values()))}


def _losses(steps: Steps, evaluations: list[dict[str, Any]], dataset: dict[str, Any]) -> dict[str, Any]:
    best = min(evaluations, key=lambda evaluation: float(evaluation["loss"]), default=None)
    return {
        "train_first": steps.first_loss,
        "train_last": steps.last_loss,
        "validation_last": evaluations[-1]["loss"] if evaluations else None,
        "validation_best": best["loss"] if best else None,
        "validation_best_step": best["step"] if best else None,
        "uniform": dataset["baselines"].get("uniform"),
        "unigram": dataset["baselines"].get("unigram"),
    }


def _dataset(lake: Lake, state: RunState) -> dict[str, Any]:
    """What the manifest says; a dataset that was deleted meanwhile is only named."""
    folder = lake.dataset(state.dataset_name, state.dataset_version)
    facts: dict[str, Any] = {"name": state.dataset_name, "version": state.dataset_version, "path": str(folder),
                             "counts": {}, "rejected": {}, "baselines": {}, "splits": {}, "problem": None}
    try:
        manifest = Manifest.load(folder)
    except DataError as error:
        return facts | {"problem": str(error)}
    prefix = "rejected_"
    return facts | {
        "counts": {name: count for name, count in manifest.counts.items()
                   if not name.startswith(prefix) and name != "duplicates"},  # those are in "rejected" too
        "rejected": {name.removeprefix(prefix): count for name, count in manifest.counts.items()
                     if name.startswith(prefix)},
        "baselines": manifest.baselines,
        "splits": {split: {"shards": len(shards), "rows": manifest.rows(split), "row_groups": sum(
            shard.num_row_groups for shard in shards), "bytes": sum(shard.bytes for shard in shards)}
            for split, shards in manifest.splits.items()},
        "sequence_length": manifest.sequence_length,
        "vocabulary_size": manifest.vocabulary_size,
        "source": manifest.source,
    }


def _ranks(lake: Lake, state: RunState) -> list[dict[str, Any]]:
    """Where each rank's time went, summed over its steps, and the most memory it held."""
    sums = ["tokens", "seconds", "data_wait_s", "compute_s", "communication_s", "pipeline_wait_s", "averaging_s"]
    rows = read_rows(lake, "rank_steps", state.run_id, ["rank", *sums, "memory_bytes"])
    if not rows.num_rows:
        return []
    grouped = rows.group_by("rank").aggregate([*((name, "sum") for name in sums), ("memory_bytes", "max")])
    return [{"rank": row["rank"], "replica_index": row["rank"] // state.num_segments,
             "segment_index": row["rank"] % state.num_segments,
             "host": _host(state, row["rank"]), **{name: row[f"{name}_sum"] or 0 for name in sums},
             "memory_peak_bytes": row["memory_bytes_max"]} for row in grouped.sort_by("rank").to_pylist()]


def _host(state: RunState, rank: int) -> str | None:
    return state.placement[rank] if rank < len(state.placement) else None


def _sample(lake: Lake, state: RunState) -> dict[str, Any] | None:
    """The text generated last, without its prompt, as text that any output can hold (a lone surrogate has no UTF-8)."""
    for attempt in reversed(range(len(state.attempt_start_steps))):
        record = last_sample(lake.run(state.run_id).record(attempt, 0))
        if record is not None:
            prompt, text = (str(record.get(name) or "").encode("utf-8", "replace").decode()
                            for name in ("prompt", "text"))
            return {"step": record.get("step"), "prompt": prompt, "text": text.removeprefix(prompt)}
    return None


def _paths(lake: Lake, state: RunState) -> dict[str, Any]:
    run = lake.run(state.run_id)
    models = {which: lake.model(state.run_id, which) for which in ("best", "last")}
    return {"run": str(run.path), "report": str(run.report),
            "tables": {name: str(lake.table(name)) for name in TABLE_NAMES},
            "models": {which: str(path) for which, path in models.items() if Path(path).is_dir()}}


def _utc(time_s: float | None) -> str | None:
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
