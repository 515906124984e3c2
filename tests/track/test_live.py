"""Tables grow while the run goes on, and nobody who reads them meanwhile is disturbed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest
from pyspark.sql import SparkSession

from pipelines.lake.paths import Lake
from pipelines.track.live import LiveLoader
from pipelines.track.parts import read_rows
from pipelines.track.tables import load_run
from pipelines.track.views import register_tables
from tests.track.conftest import WriteRun, save_state, write_steps


def wait_for(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.02)


def rows(lake: Lake) -> int:
    return read_rows(lake, "steps", "run-1", ["step"]).num_rows


def test_rows_are_visible_while_the_ranks_still_write(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    with LiveLoader(lake, "run-1", interval_s=0.05) as loader:
        time.sleep(0.2)  # several rounds without a run: nothing to complain about
        save_state(lake, "run-1")  # the run begins after the loader
        for last in (3, 6):
            write_steps(lake, "run-1", 0, 0, range(last - 2, last + 1))
            wait_for(lambda last=last: rows(lake) == last)
        assert loader.error is None and not caplog.records
    assert not [thread for thread in threading.enumerate() if thread.name == "live-loader-run-1"]


def test_a_long_run_is_loaded_more_seldom(lake: Lake) -> None:
    loader = LiveLoader(lake, "run-1")
    assert [loader.interval_s(age_s) for age_s in (0, 150, 30 * 60, 5 * 3600, 30 * 24 * 3600)] == [5, 5, 60, 600, 600]


@pytest.mark.parametrize(("age_s", "loads"), [(150, 30), (20 * 60, 90), (5 * 3600, 175), (30 * 24 * 3600, 4500)])
def test_a_run_has_the_number_of_parts_that_is_promised(lake: Lake, age_s: int, loads: int) -> None:
    loader, now_s, found = LiveLoader(lake, "run-1"), 0.0, 0
    while now_s < age_s:
        now_s += loader.interval_s(now_s)
        found += 1
    assert found == pytest.approx(loads, rel=0.05)


def test_nothing_is_loaded_after_the_loader_has_stopped(lake: Lake) -> None:
    save_state(lake, "run-1")
    with LiveLoader(lake, "run-1", interval_s=600):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "live-loader-run-1"]  # waits for no interval
    write_steps(lake, "run-1", 0, 0, range(1, 3))
    assert rows(lake) == 0


def test_a_fault_in_the_loading_is_said_once_and_does_not_stop_it(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    save_state(lake, "run-1")
    write_steps(lake, "run-1", 0, 0, range(1, 3))
    path = lake.run("run-1").live(0).record(0)
    whole = path.read_bytes()
    path.write_bytes(whole + b"nonsense\n")
    with caplog.at_level(logging.WARNING), LiveLoader(lake, "run-1", interval_s=0.02) as loader:
        wait_for(lambda: loader.error is not None)
        time.sleep(0.3)  # several more loads fail the same way
        path.write_bytes(whole)
        wait_for(lambda: loader.error is None and rows(lake) == 2)
    assert ["line 4" in record.getMessage() for record in caplog.records] == [True]


def test_a_fault_that_nobody_thought_of_does_not_stop_it_either(
        lake: Lake, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(lake, "run-1")
    write_steps(lake, "run-1", 0, 0, range(1, 3))
    loads: list[str] = []

    def load_from_the_second_time_on(lake: Lake, run_id: str) -> None:
        loads.append(run_id)
        if len(loads) == 1:
            raise KeyError("a fault")
        load_run(lake, run_id)

    monkeypatch.setattr("pipelines.track.live.load_run", load_from_the_second_time_on)
    with caplog.at_level(logging.WARNING), LiveLoader(lake, "run-1", interval_s=0.02) as loader:
        wait_for(lambda: loader.error is None and rows(lake) == 2)
    assert [record.getMessage() for record in caplog.records] == [
        "metrics of run run-1 are not in the tables yet: KeyError('a fault')"]


@pytest.mark.processes
def test_a_spark_reader_never_fails_and_sees_each_row_once_while_files_grow(spark: SparkSession, lake: Lake) -> None:
    save_state(lake, "run-1", status="interrupted")
    for rank in (0, 1):
        write_steps(lake, "run-1", 0, rank, range(1, 2))
    load_run(lake, "run-1")
    stopping = threading.Event()

    def train() -> None:
        step = 2
        while not stopping.wait(0.01):
            for rank in (0, 1):
                write_steps(lake, "run-1", 0, rank, range(step, step + 7))
            step += 7
            load_run(lake, "run-1")

    training = threading.Thread(target=train)
    training.start()
    try:
        seen = 0
        for _ in range(6):
            found = spark.read.parquet(lake.store.place(lake.table("rank_steps"))).groupBy("step", "rank").count().collect()
            assert {row["count"] for row in found} == {1}
            steps = {row["step"] for row in found}
            assert steps == set(range(1, max(steps) + 1)) and len(found) == 2 * len(steps)
            run = spark.read.parquet(lake.store.place(lake.table("runs"))).collect()
            assert [row.status for row in run] == ["interrupted"]
            assert max(steps) >= seen
            seen = max(steps)
    finally:
        stopping.set()
        training.join()
    assert seen > 7


@pytest.mark.processes
def test_tables_have_names_in_a_session_and_stay_current(spark: SparkSession, lake: Lake, write_run: WriteRun) -> None:
    register_tables(spark, lake)
    assert spark.sql("SELECT * FROM rejected").count() == 0
    write_run(num_steps=4)
    load_run(lake, "run-1")
    register_tables(spark, lake)
    assert spark.sql("SELECT count(*) FROM steps").first()[0] == 4
    write_run("run-2", num_steps=3)
    load_run(lake, "run-2")
    by_run = spark.sql("SELECT run_id, count(*) FROM steps GROUP BY run_id ORDER BY run_id").collect()
    assert by_run == [("run-1", 4), ("run-2", 3)]
    by_path = spark.sql(f"SELECT max(loss) FROM parquet.`{lake.store.place(lake.table('steps'))}`").first()
    assert by_path[0] == 9.9
    assert spark.sql("SELECT * FROM datasets").columns[0] == "dataset_name"
