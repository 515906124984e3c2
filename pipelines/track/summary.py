"""One run in numbers: what the report page shows, what ``report --json`` prints, what the console says at the end.

Runs on: driver.
Takes:   the run's rows in the tables (``load_run`` brings them up to date), its state, its dataset's manifest.
Gives:   a dict of plain JSON values; figures that there are none of are None. Needs neither Spark nor torch.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.errors import DataError
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake, is_run_id
from pipelines.lake.runs import AttemptState, OlderRunError, RunState, current_state
from pipelines.lake.schemas import TABLE_NAMES
from pipelines.track.evaluated import evaluations_found
from pipelines.track.figures import RankFigures, StepFigures, evaluations_in_order
from pipelines.track.record_rows import last_exhibits
from pipelines.track.settings import run_settings
from pipelines.track.timeline import split_step_of

TIME_PARTS = ("compute", "communication", "data_wait")  # what is left of a step's seconds is "other"


def summarize(lake: Lake, run_id: str | None = None) -> dict[str, Any]:
    """The run's summary; the newest run's where no id is given.

    Raises:
        DataError: no such run (the message names those there are).
    """
    return Measured.of(lake, run_id).summary


@dataclass(frozen=True)
class Measured:
    """A run's summary, and the curves that are drawn beside it: its rows are read once for both."""

    summary: dict[str, Any]
    steps: StepFigures
    ranks: RankFigures

    @staticmethod
    def of(lake: Lake, run_id: str | None = None) -> Measured:
        """Raises DataError where there is no such run."""
        state = find_run(lake, run_id)
        steps, ranks = StepFigures.of(lake, state.run_id), RankFigures.of(lake, state.run_id)
        return Measured(_summary(lake, state, steps, ranks), steps, ranks)


def _summary(lake: Lake, state: RunState, steps: StepFigures, rank_figures: RankFigures) -> dict[str, Any]:
    evaluations = evaluations_in_order(lake, state.run_id)
    dataset = _dataset(lake, state)
    newest = state.newest
    ranks = _ranks(newest, rank_figures)
    newest_s = newest.ended_s if newest.ended_s is not None else steps.newest_s
    return {
        "run_id": state.run_id,
        "status": state.status,
        "exit_code": newest.exit_code,
        "error": newest.error,
        "started": _utc(newest.started_s or None),
        "ended": _utc(newest.ended_s),
        "seconds": round(newest_s - newest.started_s, 3) if newest_s and newest.started_s else None,
        "recipe": {"name": state.recipe_name, "hash": state.recipe_hash},
        "dataset": dataset,
        "layout": {"num_replicas": newest.num_replicas, "num_segments": newest.num_segments,
                   "num_ranks": newest.num_ranks, "device": newest.device,
                   "precision": state.precision, "placement": list(newest.placement)},
        "parameters": state.parameters,
        "settings": run_settings(lake.store, lake.run(state.run_id).config(newest.number)),
        "steps": {"planned": state.planned_steps, "done": steps.last_step, "attempts": len(state.attempts),
                  "stopped_early": state.status == "completed" and steps.last_step < state.planned_steps,
                  "attempt_start_steps": [attempt.start_step for attempt in state.attempts]},
        "loss": _losses(steps, evaluations),
        "baselines": dataset["baselines"],
        "throughput": {"unit": state.unit, "units": steps.units, "units_per_s": steps.steady_units_per_s},
        "time_share": time_shares(ranks),
        "ranks": ranks,
        "split_step": split_step_of(lake.run(state.run_id), state),
        "evaluations": evaluations,
        "exhibits": _exhibits(lake, state),
        "evaluated": [_encodable(result) for result in evaluations_found(lake, state.run_id)],
        "environment": newest.environment,
        "command": newest.command,
        "paths": _paths(lake, state),
    }


def known_runs(lake: Lake) -> list[str]:
    """Ids of all runs in the lake, the newest last."""
    states = {name: lake.store.facts(lake.run(name).state) for name in lake.store.names(lake.runs()) if is_run_id(name)}
    found = sorted((facts.modified_s, run_id) for run_id, facts in states.items() if facts is not None)
    return [run_id for _, run_id in found]


def find_run(lake: Lake, run_id: str | None) -> RunState:
    """The state of the named run, or of the run that was started last.

    Raises:
        DataError: no such run. ConfigError: the id is no name.
    """
    if run_id is not None:
        lake.run(run_id)
    known = known_runs(lake)
    if not known:
        raise DataError(lake.store.place(lake.runs()), "there is no run yet",
                        "run the train job first, or give the platform of another lake")
    if run_id is None:
        return _started_last(lake, known)
    state = current_state(lake.run(run_id)) if run_id in known else None
    if state is None:
        close = difflib.get_close_matches(run_id, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        shown = ", ".join(known[-10:]) + (f" and {len(known) - 10} older ones" if len(known) > 10 else "")
        raise DataError(f"run {run_id}", f"there is no such run in {lake.store.place(lake.runs())}", f"{hint}there are: {shown}")
    return state


def _started_last(lake: Lake, known: list[str]) -> RunState:
    """Raises OlderRunError where another version made them all; one that is asked for by no name is passed over."""
    newest, older = None, None
    for run_id in known:
        try:
            state = current_state(lake.run(run_id))
        except OlderRunError as error:
            older = error
            continue
        if state is not None and (newest is None or state.newest.started_s >= newest.newest.started_s):
            newest = state
    if newest is None:
        raise older or DataError(lake.store.place(lake.runs()), "its runs vanished")
    return newest


def time_shares(ranks: list[dict[str, Any]]) -> dict[str, float] | None:
    """Share of the ranks' time in each part of a step: over all steps and ranks together, summing to 1."""
    seconds = sum(rank["seconds"] for rank in ranks)
    if seconds <= 0:
        return None
    shares = {part: sum(rank[f"{part}_s"] for rank in ranks) / seconds for part in TIME_PARTS}
    return {**shares, "other": max(0.0, 1.0 - sum(shares.values()))}


def _losses(steps: StepFigures, evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    best = min(evaluations, key=lambda evaluation: float(evaluation["loss"]), default=None)
    return {
        "train_first": steps.first_loss,
        "train_last": steps.last_loss,
        "validation_last": evaluations[-1]["loss"] if evaluations else None,
        "validation_best": best["loss"] if best else None,
        "validation_best_step": best["step"] if best else None,
    }


def _dataset(lake: Lake, state: RunState) -> dict[str, Any]:
    """What the manifest says; a dataset that was deleted meanwhile is only named."""
    folder = lake.dataset(state.dataset_name, state.dataset_version)
    facts: dict[str, Any] = {
        "name": state.dataset_name, "version": state.dataset_version, "path": lake.store.place(folder), "task": None,
        "loss_unit": "nats", "loss_exponential": None, "sizes": {}, "units": {}, "counts": {}, "rejected": {}, "baselines": [],
        "splits": {}, "problem": None}
    try:
        manifest = Manifest.load(lake.store.below(folder))
    except DataError as error:
        return facts | {"problem": str(error)}
    prefix = "rejected_"
    return facts | {
        "task": manifest.task.name, "loss_unit": manifest.task.loss_unit, "loss_exponential": manifest.task.loss_exponential,
        "sizes": manifest.task.sizes, "units": manifest.units,
        "counts": {name: count for name, count in manifest.counts.items()
                   if not name.startswith(prefix) and name != "duplicates"},  # those are in "rejected" too
        "rejected": {name.removeprefix(prefix): count for name, count in manifest.counts.items()
                     if name.startswith(prefix)},
        "baselines": [asdict(baseline) for baseline in manifest.baselines],
        "splits": {split: {"shards": len(shards), "rows": manifest.rows(split), "row_groups": sum(
            shard.num_row_groups for shard in shards), "bytes": sum(shard.bytes for shard in shards)}
            for split, shards in manifest.splits.items()},
        "source": manifest.source,
    }


def _ranks(attempt: AttemptState, figures: RankFigures) -> list[dict[str, Any]]:
    """Where each rank's time went, summed over its steps, and the most memory it held."""
    sums_R, peak_R = figures.sums_R, figures.memory_bytes.peaks
    return [{"rank": rank, "replica_index": rank // attempt.num_segments, "segment_index": rank % attempt.num_segments,
             "host": _host(attempt, rank), "units": int(sums_R["units"][rank]),
             **{name: float(sum_R[rank]) for name, sum_R in sums_R.items() if name != "units"},
             "memory_peak_bytes": int(peak_R[rank]) if peak_R[rank] > 0 else None}
            for rank in range(len(peak_R)) if figures.steps_R[rank]]


def _host(attempt: AttemptState, rank: int) -> str | None:
    return attempt.placement[rank] if rank < len(attempt.placement) else None


def _exhibits(lake: Lake, state: RunState) -> dict[str, Any] | None:
    """What data and model showed last (``lake/exhibits.py``); where that is nothing, ``reason`` says why.

    Texts are such that any output can hold them (a lone surrogate has no UTF-8).
    """
    for attempt in reversed(state.attempts):
        record = last_exhibits(lake.run(state.run_id).live(attempt.number).record(0))
        if record is not None:
            return {name: _encodable(record.get(name)) for name in ("step", "shown", "reason")} | {
                "data": _encodable(record.get("data", []))}
    return None


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    return {key: _encodable(each) for key, each in value.items()} if isinstance(value, dict) else value


def _paths(lake: Lake, state: RunState) -> dict[str, Any]:
    run = lake.run(state.run_id)
    return {"run": lake.store.place(run.key), "report": lake.store.place(run.report),
            "tables": {name: lake.store.place(lake.table(name)) for name in TABLE_NAMES},
            "models": {which: lake.store.place(lake.model(state.run_id, which)) for which in ("best", "last")
                       if lake.store.names(lake.model(state.run_id, which))}}


def _utc(time_s: float | None) -> str | None:
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
