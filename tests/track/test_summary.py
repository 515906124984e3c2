"""The summary's numbers are those that one gets by hand."""

from __future__ import annotations

import json
import math
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordWriter
from pipelines.lake.schemas import arrow_schema
from pipelines.track.figures import StepFigures
from pipelines.track.parts import put_part
from pipelines.track.summary import known_runs, summarize
from pipelines.track.tables import load_run
from pipelines.track.verdict import verdict
from tests.track.conftest import START_S, WriteRun, save_state, write_steps


def test_numbers_are_right_on_a_run_that_one_can_work_out_by_hand(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    load_run(lake, "run-1")
    summary = summarize(lake, "run-1")
    assert summary["loss"] == {
        "train_first": 9.9, "train_last": pytest.approx(8.45), "validation_last": 8.0, "validation_best": 7.5,
        "validation_best_step": 10}
    assert [(baseline["name"], baseline["loss"]) for baseline in summary["baselines"]] == [
        ("guessing", 9.0), ("token frequencies", 8.5)]
    assert summary["time_share"] == pytest.approx(
        {"compute": 0.7, "communication": 0.2, "data_wait": 0.1, "other": 0.0})
    assert summary["throughput"] == {"unit": "tokens", "units": 4000, "units_per_s": 400.0}
    assert [(r["rank"], r["host"], r["units"], r["seconds"], r["memory_peak_bytes"]) for r in summary["ranks"]] == [
        (0, "host-a", 2000, 10.0, 1020), (1, "host-b", 2000, 10.0, 1020)]
    assert summary["dataset"]["rejected"] == {"empty": 2, "undecodable": 1}
    assert summary["dataset"]["splits"]["train"] == {"shards": 2, "rows": 912, "row_groups": 3, "bytes": 7000}
    assert summary["exhibits"] == {"step": 20, "reason": None, "data": [], "shown": [
        {"kind": "text", "title": "What it writes", "prompt": "Once", "text": "the end"}]}
    assert summary["steps"] == {"planned": 20, "done": 20, "attempts": 1, "attempt_start_steps": [0], "stopped_early": False}
    assert (summary["status"], summary["exit_code"], summary["seconds"]) == ("completed", 0, 60.0)
    assert summary["evaluations"][0] == {"step": 10, "loss": 7.5, "samples": 5, "units": 50, "seconds": 0.1}


def test_a_summary_is_plain_json_with_finite_numbers(lake: Lake, write_run: WriteRun) -> None:
    write_run(text="\ud800 \x00 漢字")
    load_run(lake, "run-1")
    text = json.dumps(summarize(lake, "run-1"), allow_nan=False, ensure_ascii=False)
    assert "漢字" in text and text.encode()


def test_steady_throughput_leaves_out_the_start_of_every_attempt(lake: Lake) -> None:
    save_state(lake, "run-1", (0, 20))
    for attempt, first in ((0, 1), (1, 21)):
        write_steps(lake, "run-1", attempt, 0, range(first, first + 5), seconds=100.0)  # slow: start-up
        write_steps(lake, "run-1", attempt, 0, range(first + 5, first + 20), seconds=0.25)
    load_run(lake, "run-1")
    assert summarize(lake, "run-1")["throughput"]["units_per_s"] == 800.0


def step_rows(first: int, values: list[float], attempt: int = 0) -> pa.Table:
    """Rows of ``steps`` whose every figure is the value, of 10 units each."""
    count = len(values)
    return pa.table({"attempt": [attempt] * count, "step": range(first, first + count), "loss": values,
                     "learning_rate": values, "gradient_norm": values, "units": [10] * count, "seconds": values,
                     "time": pa.array([0] * count, pa.timestamp("us", tz="UTC"))})


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=30), st.integers(1, 9))
def test_throughput_lies_between_the_slowest_and_the_fastest_step(seconds: list[float], piece: int) -> None:
    figures = StepFigures({})
    for first in range(0, len(seconds), piece):  # however the rows come
        figures.add(step_rows(first + 1, seconds[first:first + piece]))
    speed = figures.steady_units_per_s
    assert speed is not None and 10 / max(seconds) * 0.999 <= speed <= 10 / min(seconds) * 1.001


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=2000), st.integers(1, 700), st.data())
def test_a_spike_of_one_step_is_in_the_curve_of_any_length(values: list[float], piece: int, data: st.DataObject) -> None:
    spike = data.draw(st.integers(0, len(values) - 1))
    values[spike] = 1000.0
    figures = StepFigures({})
    for first in range(0, len(values), piece):
        figures.add(step_rows(first + 1, values[first:first + piece]))
    curve = figures.curve("loss")
    point = int(np.searchsorted(curve.steps, spike + 1))
    assert len(curve.steps) <= 320 and curve.highs[point] == 1000.0 == curve.highs.max()
    assert curve.steps[-1] == len(values) and curve.lows.min() >= 0.5
    widths = np.diff([0, *curve.steps])
    assert (curve.means * widths).sum() == pytest.approx(sum(values))


def test_a_run_without_steps_has_a_summary(lake: Lake) -> None:
    save_state(lake, "run-1", status="failed", exit_code=5, error="too few slots")
    load_run(lake, "run-1")
    summary = summarize(lake, "run-1")
    assert summary["error"] == "too few slots" and summary["steps"]["done"] == 0
    assert summary["time_share"] is None and summary["exhibits"] is None and summary["loss"]["train_last"] is None
    assert verdict(summary).headline == "The run failed before its first step was done"


def test_a_summary_needs_neither_the_dataset_nor_the_loading(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    shutil.rmtree(lake.root / "datasets")
    summary = summarize(lake, "run-1")
    assert "run the prepare job" in summary["dataset"]["problem"] and summary["baselines"] == []


def test_the_newest_run_is_taken_where_none_is_named(lake: Lake) -> None:
    for run_id, started_s in (("old", START_S), ("new", START_S + 9), ("older", START_S - 9)):
        save_state(lake, run_id, started_s=started_s)
    assert summarize(lake)["run_id"] == "new"


def test_an_unknown_run_is_refused_with_the_ones_that_there_are(lake: Lake) -> None:
    with pytest.raises(DataError, match="there is no run yet; run the train job first"):
        summarize(lake)
    for run_id in ("demo-1", "demo-2", "other"):
        save_state(lake, run_id)
    with pytest.raises(DataError, match=r"did you mean 'demo-2'.*demo-1") as caught:
        summarize(lake, "demo2")
    assert caught.value.exit_code == 3


def test_a_torn_last_line_is_not_what_the_model_shows(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    path = lake.run("run-1").live(0).record(0)
    path.write_bytes(path.read_bytes() + b'{"kind": "exhibits", "step": 99, "shown": []}')
    assert summarize(lake, "run-1")["exhibits"]["step"] == 20


BASELINES = (("guessing", 8.3), ("token frequencies", 6.0), ("a bigram model", 4.5))


def losses(num_baselines: int = 3, **facts: Any) -> dict[str, Any]:
    return {"status": "completed", "steps": {"done": 10, "planned": 10}, "loss": {
        "validation_last": 2.0, "validation_best": 2.0, "validation_best_step": 10, "train_first": 8.0,
        "train_last": 1.9, **facts},
        "baselines": [{"name": name, "loss": loss, "note": ""} for name, loss in BASELINES[:num_baselines]],
        "dataset": {"loss_unit": "nats per token", "loss_exponential": "perplexity"}}


@pytest.mark.parametrize(("num_baselines", "facts", "level", "headline"), [
    (3, {}, "good", "Better than a bigram model by 2.50 nats per token"),
    (3, {"validation_last": 5.0}, "unclear",
     "Better than token frequencies by 1.00 nats per token; a bigram model is better still, by 0.50"),
    (2, {}, "good", "Better than token frequencies by 4.00 nats per token"),
    (3, {"validation_last": 7.0}, "unclear", "No better than token frequencies: 1.00 nats per token above"),
    (3, {"validation_last": 8.4}, "bad", "No better than guessing: 0.10 nats per token above"),
    (1, {}, "good", "Better than guessing by 6.30 nats per token"),
    (1, {"validation_last": 8.3}, "bad", "No better than guessing: 0.00 nats per token above"),
    (3, {"validation_last": None, "validation_best": None}, "good", "Better than a bigram model by 2.60 nats per token"),
    (0, {}, "unclear", "The loss fell"),
    (0, {"train_first": None}, "unclear", "The loss did not fall"),
    (3, {"validation_last": None, "train_last": None}, "unclear", "No loss has been recorded"),
])
def test_the_verdict_compares_with_the_baselines_and_claims_no_more(num_baselines: int, facts: dict[str, Any], level: str,
                                                                    headline: str) -> None:
    found = verdict(losses(num_baselines, **facts))
    assert (found.level, found.headline) == (level, headline)
    assert "learned" not in found.headline + found.detail


def test_the_verdict_gives_the_numbers_that_it_compares() -> None:
    assert verdict(losses()).detail == ("Validation loss is 2.000 nats per token (perplexity 7.4). For comparison: 4.500 by a "
                                        "bigram model, 6.000 by token frequencies, 8.300 by guessing.")
    assert "bigram" not in verdict(losses(2)).detail


def test_the_verdict_says_where_the_model_was_better() -> None:
    assert "better at step 4" in verdict(losses(validation_best=1.5, validation_best_step=4)).detail
    assert "better" not in verdict(losses(validation_best=1.99)).detail


def test_shares_are_finite_for_steps_of_no_length(lake: Lake) -> None:
    save_state(lake, "run-1")
    write_steps(lake, "run-1", 0, 0, range(1, 3), seconds=0.0, compute_s=0.0, communication_s=0.0, data_wait_s=0.0)
    with RecordWriter(lake.run("run-1").live(0).record(0), 0, 0) as records:
        records.write("exhibits", step=2, shown=[], reason=None)
    load_run(lake, "run-1")
    summary = summarize(lake, "run-1")
    assert summary["time_share"] is None and summary["throughput"]["units_per_s"] is None
    assert math.isclose(summary["loss"]["train_last"], 9.85)


def test_a_long_run_of_many_ranks_is_summarized_in_the_memory_of_a_short_one(tmp_path: Path) -> None:
    def peak_bytes(num_parts: int) -> int:
        lake = Lake.at(tmp_path / f"{num_parts}")
        save_state(lake, "run-1", num_replicas=4)
        for part in range(num_parts):
            write_part(lake, part, num_steps=5000, num_ranks=4)
        summarize(lake, "run-1")  # what is made once, such as compiled patterns
        usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            summary = summarize(lake, "run-1")
            peak = pool.max_memory() + tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(usual)
        assert [rank["units"] for rank in summary["ranks"]] == [num_parts * 5000 * 7] * 4
        assert summary["ranks"][3]["memory_peak_bytes"] == 3 + 5000 * num_parts
        return peak

    assert peak_bytes(20) < 1.2 * peak_bytes(2)


def write_part(lake: Lake, part: int, num_steps: int, num_ranks: int) -> None:
    """A part file each of ``steps`` and ``rank_steps``, as a load leaves it."""
    first = 1 + part * num_steps
    step = np.arange(first, first + num_steps).repeat(num_ranks)
    rank = np.tile(np.arange(num_ranks), num_steps)
    for table, count in (("steps", num_steps), ("rank_steps", num_steps * num_ranks)):
        values = {"run_id": ["run-1"] * count, "attempt": np.zeros(count, int), "rank": rank[:count], "units": np.full(count, 7),
                  "step": np.arange(first, first + count) if table == "steps" else step, "memory_bytes": (step + rank)[:count]}
        schema = arrow_schema(table)
        columns = [pa.array(values.get(field.name, np.ones(count, int))).cast(field.type) for field in schema]
        rows = pa.table(columns, schema=schema)
        put_part(lake.store, f"{lake.table(table)}/run-1-000-{part:05d}.parquet", rows, {"rank-00000.jsonl": part})


def test_a_folder_beside_the_runs_that_is_no_run_disturbs_nothing(tmp_path):
    lake = Lake.at(tmp_path)
    for name in ("a copy of a run", "run"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "state.json").write_text("{}")
    assert known_runs(lake) == ["run"]
