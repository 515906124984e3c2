"""The summary's numbers are those that one gets by hand."""

from __future__ import annotations

import json
import math
import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.tables.paths import Lake
from pipelines.tables.records import RecordWriter
from pipelines.track.figures import Steps
from pipelines.track.load import load_run
from pipelines.track.summary import summarize
from pipelines.track.verdict import verdict
from tests.track.conftest import START_S, WriteRun, state_of, write_steps


def test_numbers_are_right_on_a_run_that_one_can_work_out_by_hand(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    load_run(lake, "run-1")
    summary = summarize(lake, "run-1")
    assert summary["loss"] == {
        "train_first": 9.9, "train_last": pytest.approx(8.45), "validation_last": 8.0, "validation_best": 7.5,
        "validation_best_step": 10, "uniform": 9.0, "unigram": 8.5}
    assert summary["time_share"] == pytest.approx(
        {"compute": 0.7, "communication": 0.2, "data_wait": 0.1, "other": 0.0})
    assert summary["throughput"] == {"tokens": 4000, "tokens_per_s": 400.0}
    assert [(r["rank"], r["host"], r["tokens"], r["seconds"], r["memory_peak_bytes"]) for r in summary["ranks"]] == [
        (0, "host-a", 2000, 10.0, 1020), (1, "host-b", 2000, 10.0, 1020)]
    assert summary["dataset"]["rejected"] == {"empty": 2, "undecodable": 1}
    assert summary["dataset"]["splits"]["train"] == {"shards": 2, "rows": 912, "row_groups": 3, "bytes": 7000}
    assert summary["sample"] == {"step": 20, "prompt": "Once", "text": "the end"}
    assert summary["steps"] == {"planned": 20, "done": 20, "attempts": 1, "attempt_start_steps": [0], "stopped_early": False}
    assert (summary["status"], summary["exit_code"], summary["seconds"]) == ("completed", 0, 60.0)
    assert summary["evaluations"][0] == {"step": 10, "loss": 7.5, "samples": 5, "tokens": 50, "seconds": 0.1}


def test_a_summary_is_plain_json_with_finite_numbers(lake: Lake, write_run: WriteRun) -> None:
    write_run(text="\ud800 \x00 漢字")
    load_run(lake, "run-1")
    text = json.dumps(summarize(lake, "run-1"), allow_nan=False, ensure_ascii=False)
    assert "漢字" in text and text.encode()


def test_steady_throughput_leaves_out_the_start_of_every_attempt(lake: Lake) -> None:
    state_of("run-1", attempt=1, attempt_start_steps=(0, 20)).save(lake.run("run-1").state)
    for attempt, first in ((0, 1), (1, 21)):
        write_steps(lake, "run-1", attempt, 0, range(first, first + 5), seconds=100.0)  # slow: start-up
        write_steps(lake, "run-1", attempt, 0, range(first + 5, first + 20), seconds=0.25)
    load_run(lake, "run-1")
    assert summarize(lake, "run-1")["throughput"]["tokens_per_s"] == 800.0


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=30))
def test_throughput_lies_between_the_slowest_and_the_fastest_step(seconds: list[float]) -> None:
    count = len(seconds)
    ones = np.ones(count)
    steps = Steps(np.zeros(count, dtype=int), np.arange(1, count + 1), ones, ones, ones, 10 * ones, np.array(seconds),
                  newest_s=0.0)
    speed = steps.steady_tokens_per_s
    assert speed is not None and 10 / max(seconds) * 0.999 <= speed <= 10 / min(seconds) * 1.001


def test_a_run_without_steps_has_a_summary(lake: Lake) -> None:
    state_of("run-1", status="failed", exit_code=5, error="too few slots").save(lake.run("run-1").state)
    load_run(lake, "run-1")
    summary = summarize(lake, "run-1")
    assert summary["error"] == "too few slots" and summary["steps"]["done"] == 0
    assert summary["time_share"] is None and summary["sample"] is None and summary["loss"]["train_last"] is None
    assert verdict(summary).headline == "The run failed before its first step was done"


def test_a_summary_needs_neither_the_dataset_nor_the_loading(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    shutil.rmtree(lake.root / "datasets")
    summary = summarize(lake, "run-1")
    assert "run the prepare job" in summary["dataset"]["problem"] and summary["loss"]["uniform"] is None


def test_the_newest_run_is_taken_where_none_is_named(lake: Lake) -> None:
    for run_id, started_s in (("old", START_S), ("new", START_S + 9), ("older", START_S - 9)):
        state_of(run_id, started_s=started_s).save(lake.run(run_id).state)
    assert summarize(lake)["run_id"] == "new"


def test_an_unknown_run_is_refused_with_the_ones_that_there_are(lake: Lake) -> None:
    with pytest.raises(DataError, match="there is no run yet; run the train job first"):
        summarize(lake)
    for run_id in ("demo-1", "demo-2", "other"):
        state_of(run_id).save(lake.run(run_id).state)
    with pytest.raises(DataError, match=r"did you mean 'demo-2'.*demo-1") as caught:
        summarize(lake, "demo2")
    assert caught.value.exit_code == 3


def test_a_torn_last_line_is_not_the_generated_text(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    path = lake.run("run-1").record(0, 0)
    path.write_bytes(path.read_bytes() + b'{"kind": "sample", "step": 99, "prompt": "", "text": "torn"}')
    assert summarize(lake, "run-1")["sample"]["step"] == 20


def losses(**facts: Any) -> dict[str, Any]:
    return {"status": "completed", "steps": {"done": 10, "planned": 10}, "loss": {
        "validation_last": 2.0, "validation_best": 2.0, "validation_best_step": 10, "train_first": 8.0,
        "train_last": 1.9, "uniform": 8.3, "unigram": 6.0, **facts}}


@pytest.mark.parametrize(("facts", "level", "headline"), [
    ({}, "good", "The model learned"),
    ({"validation_last": 7.0}, "unclear", "The model learned little"),
    ({"validation_last": 8.4}, "bad", "The model has not learned"),
    ({"validation_last": None, "validation_best": None}, "good", "The model learned"),
    ({"uniform": None, "unigram": None}, "unclear", "The loss fell"),
    ({"validation_last": None, "train_last": None}, "unclear", "No loss has been recorded"),
])
def test_the_verdict_compares_with_the_baselines(facts: dict[str, Any], level: str, headline: str) -> None:
    found = verdict(losses(**facts))
    assert (found.level, found.headline) == (level, headline)


def test_the_verdict_says_where_the_model_was_better() -> None:
    assert "better at step 4" in verdict(losses(validation_best=1.5, validation_best_step=4)).detail
    assert "better" not in verdict(losses(validation_best=1.99)).detail


def test_shares_are_finite_for_steps_of_no_length(lake: Lake) -> None:
    state_of("run-1").save(lake.run("run-1").state)
    write_steps(lake, "run-1", 0, 0, range(1, 3), seconds=0.0, compute_s=0.0, communication_s=0.0, data_wait_s=0.0)
    with RecordWriter(lake.run("run-1").record(0, 0), 0, 0) as records:
        records.write("sample", step=2, prompt="", text="")
    load_run(lake, "run-1")
    summary = summarize(lake, "run-1")
    assert summary["time_share"] is None and summary["throughput"]["tokens_per_s"] is None
    assert math.isclose(summary["loss"]["train_last"], 9.85)
