"""Every record is a row exactly once, whatever happens to the loading."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from pipelines.errors import AlreadyRunningError, DataError, StorageError
from pipelines.lake.claims import claimed
from pipelines.lake.metric_facts import METRIC_NAMES
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordWriter
from pipelines.lake.schemas import TABLE_DDL
from pipelines.lake.store import FolderStore
from pipelines.track import attempt_tables, parts, tables
from pipelines.track.carried import RANK_SUMS, RankSums, StepCurves
from pipelines.track.curves import Curve
from pipelines.track.figures import RankFigures, RunTotals, StepFigures, newest_validation_loss
from pipelines.track.parts import part_keys, read_parts, read_rows
from pipelines.track.report.page import write_report
from pipelines.track.tables import LOADED_TABLES, load_run
from pipelines.track.totals import StepTotals
from tests.support.claim_holder import take_over
from tests.track.conftest import START_S, WriteRun, save_state, write_evaluation, write_steps


def keys(lake: Lake, table: str, run_id: str = "run-1") -> Counter[tuple[int, ...]]:
    """How often each (attempt, step[, rank]) is in the table."""
    columns = ["attempt", "step", *(["rank"] if table == "rank_steps" else [])]
    return Counter(tuple(row[name] for name in columns) for row in read_rows(lake, table, run_id, columns).to_pylist())


@pytest.mark.processes
def test_each_table_has_the_columns_that_its_ddl_says(spark: SparkSession, lake: Lake, write_run: WriteRun) -> None:
    write_run()
    load_run(lake, "run-1")
    for table in LOADED_TABLES:
        assert spark.read.parquet(lake.store.place(lake.table(table))).schema == StructType.fromDDL(TABLE_DDL[table]), table


@pytest.mark.processes
def test_rows_hold_what_the_ranks_recorded(spark: SparkSession, lake: Lake, write_run: WriteRun) -> None:
    write_run(num_ranks=4)
    load_run(lake, "run-1")
    step = spark.read.parquet(lake.store.place(lake.table("steps"))).where("step = 3").collect()
    assert [(r.run_id, r.attempt, r.epoch, r.loss, r.units, r.samples, r.seconds) for r in step] == [
        ("run-1", 0, 0, 9.7, 200, 20, 0.5)]
    rank = spark.read.parquet(lake.store.place(lake.table("rank_steps"))).where("step = 3 AND rank = 2").collect()
    assert [(r.replica_index, r.segment_index, r.units, r.data_wait_s, r.compute_s, r.communication_s, r.memory_bytes)
            for r in rank] == [(2, 0, 100, 0.05, 0.35, 0.1, 1003)]
    assert keys(lake, "rank_steps") == Counter({(0, s, r): 1 for s in range(1, 21) for r in range(4)})
    run = spark.read.parquet(lake.store.place(lake.table("runs"))).collect()
    assert [(r.status, r.last_step, r.attempts, r.units, r.units_per_s, r.validation_loss, r.seconds, r.placement)
            for r in run] == [("completed", 20, 1, 4000, 400.0, 8.0, 60.0, ["host-a", "host-b"])]
    assert run[0].train_loss == pytest.approx(sum(10 - s / 10 for s in range(11, 21)) / 10)
    assert json.loads(run[0].environment) == {"python": "3.11"}
    assert run[0].started.timestamp() == START_S


def test_loading_again_changes_nothing(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    load_run(lake, "run-1")
    before = {path: path.read_bytes() for path in lake.root.glob("tables/*/*")}
    load_run(lake, "run-1")
    assert {path: path.read_bytes() for path in lake.root.glob("tables/*/*")} == before


def test_a_line_without_its_newline_is_taken_when_it_is_whole(lake: Lake) -> None:
    save_state(lake, "run-1")
    write_steps(lake, "run-1", 0, 0, range(1, 4))
    path = lake.run("run-1").live(0).record(0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])  # all of the last record but its newline
    load_run(lake, "run-1")
    assert keys(lake, "steps") == Counter({(0, 1): 1, (0, 2): 1})
    path.write_bytes(whole)
    load_run(lake, "run-1")
    assert keys(lake, "steps") == Counter({(0, 1): 1, (0, 2): 1, (0, 3): 1})


def test_rows_that_a_restart_took_back_are_gone(lake: Lake) -> None:
    save_state(lake, "run-1")
    for rank, last in ((0, 8), (1, 7)):
        write_steps(lake, "run-1", 0, rank, range(1, last + 1))
    write_evaluation(lake, "run-1", 0, 4, 7.0)
    write_evaluation(lake, "run-1", 0, 8, 6.0)
    load_run(lake, "run-1")
    assert keys(lake, "steps")[0, 8] == 1
    save_state(lake, "run-1", (0, 4))
    for rank in (0, 1):
        write_steps(lake, "run-1", 1, rank, range(5, 10))
    write_evaluation(lake, "run-1", 1, 4, 7.0)  # the first attempt's counts
    write_evaluation(lake, "run-1", 1, 8, 6.5)
    load_run(lake, "run-1")
    kept = [(0, step) for step in range(1, 5)] + [(1, step) for step in range(5, 10)]
    assert keys(lake, "steps") == Counter(kept)
    assert keys(lake, "rank_steps") == Counter((*key, rank) for key in kept for rank in (0, 1))
    assert keys(lake, "evaluations") == Counter({(0, 4): 1, (1, 8): 1})


def test_rows_that_a_restart_took_back_before_they_were_loaded_never_come(lake: Lake) -> None:
    save_state(lake, "run-1", (0, 4))
    for rank in (0, 1):
        write_steps(lake, "run-1", 0, rank, range(1, 9))
        write_steps(lake, "run-1", 1, rank, range(5, 7))
    load_run(lake, "run-1")
    kept = [(0, step) for step in range(1, 5)] + [(1, step) for step in range(5, 7)]
    assert keys(lake, "rank_steps") == Counter((*key, rank) for key in kept for rank in (0, 1))


def test_an_evaluation_that_the_killed_attempt_missed_is_made_up_for(lake: Lake) -> None:
    save_state(lake, "run-1", (0, 4))
    write_steps(lake, "run-1", 0, 0, range(1, 5))
    write_steps(lake, "run-1", 1, 0, range(5, 5))
    write_evaluation(lake, "run-1", 1, 4, 7.0)
    load_run(lake, "run-1")
    assert keys(lake, "evaluations") == Counter({(1, 4): 1})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=3), data=st.data())
def test_rows_do_not_depend_on_when_they_were_loaded(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
                                                     lengths: list[int], data: st.DataObject) -> None:
    """Any number of attempts, each from any step already done, loaded after any prefix of what was recorded."""
    monkeypatch.setattr(attempt_tables, "CARRIED_PARTS", 3)
    lake = Lake.at(tmp_path_factory.mktemp("lake"))
    starts, expected, done = [0], {}, 0
    for attempt, length in enumerate(lengths):
        if attempt:
            starts.append(data.draw(st.integers(0, done)))
        save_state(lake, "run-1", tuple(starts))
        expected = {step: made for step, made in expected.items() if step <= starts[-1]}
        for step in range(starts[-1] + 1, starts[-1] + length + 1):
            write_steps(lake, "run-1", attempt, 0, range(step, step + 1))
            expected[step] = attempt
            if data.draw(st.booleans()):
                load_run(lake, "run-1")
        done = starts[-1] + length
    load_run(lake, "run-1")
    assert keys(lake, "steps") == Counter((made, step) for step, made in expected.items())
    assert_totals_are_those_of_the_rows(lake)
    assert RunTotals.of(lake, "run-1").num_steps == len(expected)


def assert_totals_are_those_of_the_rows(lake: Lake) -> None:
    """What the parts carry, against the same from all rows at once."""
    of_rows, by_rank = StepFigures({}), RankSums()
    for rows in read_parts(lake, "steps", "run-1", [*{*StepTotals.COLUMNS, *StepCurves.COLUMNS}]):
        of_rows.add(rows)
    for rows in read_parts(lake, "rank_steps", "run-1", RankSums.COLUMNS):
        by_rank.add(rows)
    carried, ranks = StepFigures.of(lake, "run-1"), RankFigures.of(lake, "run-1")
    for name in ("num_steps", "last_step", "units", "first_loss", "last_loss", "newest_s", "steady_units_per_s"):
        assert getattr(carried, name) == pytest.approx(getattr(of_rows, name)), name
    for name in StepCurves.NAMES:
        assert_alike(carried.curve(name), of_rows.curve(name), ("steps", "means", "lows", "highs"))
    assert_alike(ranks.memory_bytes, by_rank.memory_bytes, ("steps", "highest", "median", "peaks"))
    assert ranks.steps_R.tolist() == by_rank.steps_R.tolist()
    for name in RANK_SUMS:
        assert ranks.sums_R[name].tolist() == pytest.approx(by_rank.sums_R[name].tolist()), name


def assert_alike(found: object, expected: object, names: tuple[str, ...]) -> None:
    for name in names:
        if len(expected.steps) or name == "steps":
            assert getattr(found, name).tolist() == pytest.approx(getattr(expected, name).tolist()), name


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.randoms())
def test_a_curve_that_was_carried_on_is_the_curve_of_all_steps_at_once(lengths: list[int], random) -> None:
    count = sum(lengths)
    values = np.array([random.uniform(-5, 5) for _ in range(count)])
    whole, carried, joined, first = Curve(16), Curve(16), Curve(16), 1
    whole.add(np.arange(1, count + 1), values)
    for length in lengths:
        steps = np.arange(first, first + length)
        carried.add(steps, values[steps - 1])
        carried = Curve.of_content(json.loads(json.dumps(carried.content())), 16)
        piece = Curve(16)
        piece.add(steps, values[steps - 1])
        joined.join(piece)
        first += length
    for curve in (carried, joined):
        assert_alike(curve, whole, ("steps", "means"))
        assert (curve.lows == whole.lows).all() and (curve.highs == whole.highs).all()
    assert (len(whole.steps) > 8 or count <= 16) and len(whole.steps) <= 16


def test_parts_have_a_bounded_size_and_cover_each_row_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_tables, "READ_BYTES", 2000)  # a few lines at a time
    save_state(lake, "run-1")
    for rank in (0, 1):
        write_steps(lake, "run-1", 0, rank, range(1, 41))
    load_run(lake, "run-1")
    sizes = [pq.read_metadata(lake.root / key).num_rows for key in part_keys(lake, "rank_steps", "run-1")]
    assert len(sizes) > 3 and max(sizes) <= 20
    assert keys(lake, "rank_steps") == Counter({(0, s, r): 1 for s in range(1, 41) for r in (0, 1)})


@pytest.fixture
def put_keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of all parts that were put, one after the other."""
    found: list[str] = []
    putting = FolderStore.put
    monkeypatch.setattr(FolderStore, "put", lambda store, key, content: (
        found.append(key) if "/run-1-" in key else None, putting(store, key, content))[1])
    return found


def test_a_part_is_put_once_whatever_restarts_take_back(lake: Lake, put_keys: list[str], monkeypatch) -> None:
    monkeypatch.setattr(attempt_tables, "CARRIED_PARTS", 2)
    starts: tuple[int, ...] = (0,)
    for attempt, start in enumerate((0, 25, 12, 12, 3)):
        starts = (*starts[:attempt], start)
        save_state(lake, "run-1", starts)
        for first in range(start + 1, start + 31, 10):
            for rank in (0, 1):
                write_steps(lake, "run-1", attempt, rank, range(first, first + 10))
            load_run(lake, "run-1")
    assert len(put_keys) == len(set(put_keys)) > 30
    kept = [(0, step) for step in range(1, 4)] + [(4, step) for step in range(4, 34)]
    assert keys(lake, "rank_steps") == Counter((*key, rank) for key in kept for rank in (0, 1))
    assert_totals_are_those_of_the_rows(lake)


def test_a_load_that_finds_nothing_for_a_table_puts_nothing_into_it(lake: Lake, put_keys: list[str], monkeypatch) -> None:
    save_state(lake, "run-1")
    for step in range(1, 21):
        write_steps(lake, "run-1", 0, 0, range(step, step + 1))
        if step == 10:
            write_evaluation(lake, "run-1", 0, step, 7.0)
        load_run(lake, "run-1")
    assert len([key for key in put_keys if "/evaluations/" in key]) == 1
    monkeypatch.setattr(attempt_tables, "SKIPPED_BYTES", 1000)  # but what is read again and again is bounded
    load_run(lake, "run-1")
    assert len([key for key in put_keys if "/evaluations/" in key]) == 2
    save_state(lake, "run-1", ended_s=START_S + 9)
    write_steps(lake, "run-1", 0, 0, range(21, 22))
    for _ in range(2):
        load_run(lake, "run-1")  # and an attempt that has ended is read to its end once
    assert len([key for key in put_keys if "/evaluations/" in key]) == 3
    assert keys(lake, "evaluations") == Counter({(0, 10): 1})
    assert newest_validation_loss(lake, "run-1") == 7.0


def without_notes(lake: Lake, table: str, *, totals: bool = False) -> None:
    """The run's parts as an older version wrote them: with the cursor alone, or with the totals as well."""
    for key in part_keys(lake, table, "run-1"):
        part = parts.TablePart.of(lake.store, key)
        assert part.totals is not None
        parts.put_part(lake.store, key, pq.ParquetFile(lake.root / key).read(), part.cursor, part.totals if totals else None)


def test_the_page_of_a_long_run_is_the_one_that_its_rows_give(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_tables, "READ_BYTES", 30_000)
    save_state(lake, "run-1", (0, 900))
    for attempt, first in ((0, 1), (1, 901)):
        for rank in range(3 - attempt):  # two ranks later, of which one has no memory
            write_steps(lake, "run-1", attempt, rank, range(first, first + 1000), loss=2.0 + attempt / 4, units=100 + rank,
                        **({"memory_bytes": None} if rank == 1 else {}))
    load_run(lake, "run-1")
    assert [parts.TablePart.of(lake.store, key).carried is not None for key in part_keys(lake, "rank_steps", "run-1")[:33]] == [
        *[False] * 31, True, False]
    write_report(lake, "run-1")
    page = lake.store.read(lake.run("run-1").report)
    for table, totals in (("steps", True), ("steps", False), ("rank_steps", False)):
        without_notes(lake, table, totals=totals)
        write_report(lake, "run-1")
        assert lake.store.read(lake.run("run-1").report) == page


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of what is opened; every fourth part carries what a report draws."""
    monkeypatch.setattr(attempt_tables, "CARRIED_PARTS", 4)
    keys: list[str] = []
    opening = FolderStore.open
    monkeypatch.setattr(FolderStore, "open", lambda store, key: (keys.append(key), opening(store, key))[1])
    return keys


def test_a_report_opens_no_more_parts_the_more_there_are(lake: Lake, opened: list[str]) -> None:
    save_state(lake, "run-1")
    counts = []
    for last in range(5, 105, 5):
        write_steps(lake, "run-1", 0, 0, range(last - 4, last + 1))
        load_run(lake, "run-1")
        opened.clear()
        write_report(lake, "run-1")
        counts.append(len(opened))
    assert len(part_keys(lake, "rank_steps", "run-1")) == 20
    assert max(counts[4:]) <= max(counts[:4]) + 2 and min(counts) == 3


def test_a_load_looks_at_no_more_parts_the_more_there_are(lake: Lake, opened: list[str]) -> None:
    save_state(lake, "run-1")
    counts = []
    for last in range(5, 105, 5):
        write_steps(lake, "run-1", 0, 0, range(last - 4, last + 1))
        opened.clear()
        load_run(lake, "run-1")
        counts.append(len(opened))
    assert len(part_keys(lake, "steps", "run-1")) == 20
    assert max(counts) == max(counts[:8])


def test_steps_that_two_restarts_took_back_are_gone_also_behind_parts_that_are_empty(lake: Lake, monkeypatch) -> None:
    monkeypatch.setattr(attempt_tables, "READ_BYTES", 2000)
    save_state(lake, "run-1")
    for first in (1, 21, 31, 41):
        write_steps(lake, "run-1", 0, 0, range(first, first + (20 if first == 1 else 10)))
        load_run(lake, "run-1")
    save_state(lake, "run-1", (0, 20))
    load_run(lake, "run-1")  # leaves empty parts
    save_state(lake, "run-1", (0, 20, 15))
    load_run(lake, "run-1")
    assert keys(lake, "steps") == Counter((0, step) for step in range(1, 16))
    assert RunTotals.of(lake, "run-1").num_steps == 15


@pytest.mark.parametrize("removals", range(5))
def test_a_load_that_is_killed_while_it_takes_back_leaves_right_totals(lake: Lake, monkeypatch, removals: int) -> None:
    save_state(lake, "run-1")
    for first in (1, 11, 21, 31):
        write_steps(lake, "run-1", 0, 0, range(first, first + 10))
        load_run(lake, "run-1")
    save_state(lake, "run-1", (0, 15))
    removing, left = FolderStore.remove, [removals]

    def killed(store: FolderStore, key: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        removing(store, key)

    monkeypatch.setattr(FolderStore, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        load_run(lake, "run-1")
    assert max(keys(lake, "steps").values()) == 1
    monkeypatch.setattr(FolderStore, "remove", removing)
    load_run(lake, "run-1")
    assert keys(lake, "steps") == Counter((0, step) for step in range(1, 16))
    assert (RunTotals.of(lake, "run-1").num_steps, RunTotals.of(lake, "run-1").last_step) == (15, 15)


def test_the_row_of_a_run_whose_parts_an_older_version_wrote_is_right(lake: Lake) -> None:
    save_state(lake, "run-1")
    write_steps(lake, "run-1", 0, 0, range(1, 31))
    load_run(lake, "run-1")
    row = pq.read_table(lake.root / lake.table("runs") / "run-1.parquet").to_pylist()
    for table in ("steps", "rank_steps"):
        without_notes(lake, table)
    load_run(lake, "run-1")
    assert pq.read_table(lake.root / lake.table("runs") / "run-1.parquet").to_pylist() == row
    write_steps(lake, "run-1", 0, 0, range(31, 41))
    load_run(lake, "run-1")
    (grown,) = pq.read_table(lake.root / lake.table("runs") / "run-1.parquet").to_pylist()
    assert (grown["last_step"], grown["units"]) == (40, row[0]["units"] * 40 // 30)
    assert_totals_are_those_of_the_rows(lake)
    for table in ("steps", "rank_steps"):
        assert [parts.TablePart.of(lake.store, key).totals is None for key in part_keys(lake, table, "run-1")] == [True, False]


def test_steps_that_a_restart_took_back_are_gone_from_parts_of_an_older_version(lake: Lake) -> None:
    save_state(lake, "run-1")
    for rank, last in ((0, 10), (0, 20), (1, 12)):  # the newest part does not reach beyond, one before it does
        write_steps(lake, "run-1", 0, rank, range(last - 9 if rank == 0 else 1, last + 1))
        load_run(lake, "run-1")
    for table in ("steps", "rank_steps"):
        without_notes(lake, table)
    save_state(lake, "run-1", (0, 15))
    load_run(lake, "run-1")
    assert keys(lake, "rank_steps") == Counter({**{(0, step, 0): 1 for step in range(1, 16)},
                                                **{(0, step, 1): 1 for step in range(1, 13)}})
    assert_totals_are_those_of_the_rows(lake)


def test_the_row_of_a_run_keeps_its_places_in_the_file_while_its_numbers_change(lake: Lake) -> None:
    """So that a reader between two versions of the file reads whole values."""
    save_state(lake, "run-1")
    path = lake.root / lake.table("runs") / "run-1.parquet"
    places, last_steps = [], []
    for last in (5, 500):
        write_steps(lake, "run-1", 0, 0, range(1 if last == 5 else 6, last + 1))
        load_run(lake, "run-1")
        footer = pq.read_metadata(path)
        places.append([footer.row_group(0).column(i).data_page_offset for i in range(footer.row_group(0).num_columns)])
        last_steps.append(pq.ParquetFile(path).read(["last_step"]).to_pylist())
    assert places[0] == places[1] and last_steps == [[{"last_step": 5}], [{"last_step": 500}]]


KILLED_LOADER = textwrap.dedent("""
    import sys
    from pipelines.lake.paths import Lake
    from pipelines.track import attempt_tables, tables
    attempt_tables.READ_BYTES = 20_000  # many parts, so that the kill falls between them
    print("loading", flush=True)
    while True:
        tables.load_run(Lake.at(sys.argv[1]), "run-1")
""")


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.1, 0.25])
@pytest.mark.processes
def test_a_load_killed_at_any_point_and_repeated_gives_each_row_once(lake: Lake, delay_s: float) -> None:
    save_state(lake, "run-1")
    for rank in (0, 1):
        write_steps(lake, "run-1", 0, rank, range(1, 1001))
    root = Path(__file__).parents[2]
    loader = subprocess.Popen([sys.executable, "-c", KILLED_LOADER, str(lake.root)], stdout=subprocess.PIPE, cwd=root,
                              env={**os.environ, "PYTHONPATH": str(root)})
    assert loader.stdout is not None and loader.stdout.readline() == b"loading\n"
    time.sleep(delay_s)
    loader.send_signal(signal.SIGKILL)
    loader.wait(10)
    loader.stdout.close()
    litter = [lake.root / lake.table(table) / f".tmp-run-1-000-{len(part_keys(lake, table, 'run-1')):05d}.parquet-{0:012x}"
              for table in ("steps", "rank_steps")]
    for path in litter:  # what a kill within a write leaves
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half a file")
    for rank in (0, 1):
        write_steps(lake, "run-1", 0, rank, range(1001, 1011))
    load_run(lake, "run-1")
    assert keys(lake, "rank_steps") == Counter({(0, s, r): 1 for s in range(1, 1011) for r in (0, 1)})
    assert keys(lake, "steps") == Counter({(0, s): 1 for s in range(1, 1011)})
    assert not [path for path in litter if path.exists()]


def test_a_malformed_line_is_named_and_the_run_is_still_in_its_table(lake: Lake, write_run: WriteRun) -> None:
    write_run(status="failed", exit_code=6, error="rank 1 ended")
    path = lake.run("run-1").live(0).record(1)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:4], "{broken\n", *lines[4:]]))
    with pytest.raises(DataError, match=r"rank-00001\.jsonl, line 5: is not a whole record"):
        load_run(lake, "run-1")
    assert pq.ParquetFile(lake.root / lake.table("runs") / "run-1.parquet").read().to_pylist()[0]["error"] == "rank 1 ended"


@pytest.mark.parametrize(("changed", "said"), [
    ({"loss": "high"}, "'high' is not a number"), ({"step": 2.5}, "float"), ({"loss": ...}, "field 'loss' is missing")])
def test_a_record_with_a_wrong_field_is_refused(lake: Lake, changed: dict[str, object], said: str) -> None:
    save_state(lake, "run-1")
    write_steps(lake, "run-1", 0, 0, range(1, 3))
    path = lake.run("run-1").live(0).record(0)
    *lines, last = path.read_text().splitlines()
    record = {key: value for key, value in (json.loads(last) | changed).items() if value is not ...}
    path.write_text("\n".join([*lines, json.dumps(record)]) + "\n")
    with pytest.raises(DataError, match=said) as caught:
        load_run(lake, "run-1")
    assert "line 3" in str(caught.value)


def test_a_value_that_is_null_is_a_null_in_the_table(lake: Lake) -> None:
    save_state(lake, "run-1")
    write_steps(lake, "run-1", 0, 0, range(1, 3), gradient_norm=None)
    load_run(lake, "run-1")
    assert read_rows(lake, "steps", "run-1", ["gradient_norm"])["gradient_norm"].null_count == 2


def test_runs_whose_ids_begin_alike_do_not_mix(lake: Lake, write_run: WriteRun) -> None:
    for run_id, num_steps in (("a", 2), ("a-000", 3), ("a-000-00000", 4)):
        write_run(run_id, num_steps)
        load_run(lake, run_id)
    rows = [read_rows(lake, "steps", run_id, ["step"]).num_rows for run_id in ("a", "a-000", "a-000-00000")]
    assert rows == [2, 3, 4]


def test_an_unknown_run_is_an_error_that_says_so(lake: Lake) -> None:
    with pytest.raises(DataError, match="run nope"):
        load_run(lake, "nope")


def test_a_damaged_table_file_is_named_with_what_to_do(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    load_run(lake, "run-1")
    [key] = part_keys(lake, "steps", "run-1")
    path = lake.root / key
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"not a whole table file.*delete run-1-"):
        load_run(lake, "run-1")


def test_a_lake_that_cannot_be_written_is_a_storage_error(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    (lake.root / "tables").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="tables"):
        load_run(lake, "run-1")


def test_two_loaders_of_one_run_take_turns(lake: Lake, write_run: WriteRun, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run()
    monkeypatch.setattr(tables, "CLAIM_PATIENCE_S", 0.1)
    with (claimed(lake.store, lake.run("run-1").load_claim, AlreadyRunningError("here", "is not ours")),
          pytest.raises(AlreadyRunningError, match="loading its metrics")):
        load_run(lake, "run-1")
    load_run(lake, "run-1")


def test_a_loader_whose_place_another_took_meanwhile_adds_nothing(lake: Lake, write_run: WriteRun,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    write_run()
    run, first = lake.run("run-1"), attempt_tables.to_table

    def meanwhile(*arguments: object) -> pa.Table:
        take_over(lake.store, run.load_claim)
        return first(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attempt_tables, "to_table", meanwhile)
    with pytest.raises(AlreadyRunningError, match="another process took it over"):
        load_run(lake, "run-1")
    assert not any(keys(lake, table) for table in ("steps", "rank_steps"))
    assert lake.store.names(lake.table("runs")) == ["00-columns.parquet"]


@pytest.mark.processes
def test_a_table_begun_by_an_older_version_has_todays_columns_after_a_load(spark: SparkSession, lake: Lake,
                                                                           write_run: WriteRun) -> None:
    folder = Path(lake.store.place(lake.table("steps")))
    folder.mkdir(parents=True)
    old = pa.table({"run_id": ["old"], "step": pa.array([1], pa.int32()), "tokens": [5]})
    pq.write_table(old, folder / "old-000-00000.parquet")
    pq.write_table(old.slice(0, 0), folder / "00-columns.parquet")
    write_run()
    load_run(lake, "run-1")
    rows = spark.read.parquet(str(folder)).where("step = 1").select("run_id", "units").collect()
    assert sorted((row.run_id, row.units) for row in rows) == [("old", None), ("run-1", 200)]


def test_a_part_of_an_older_version_is_read_with_nulls_and_not_added_to(lake: Lake) -> None:
    """A run whose first rows were loaded before the metrics were columns, and which goes on."""
    save_state(lake, "run-1", status="running")
    write_steps(lake, "run-1", 0, 0, range(1, 6))
    write_evaluation(lake, "run-1", 0, 5, 7.5)
    load_run(lake, "run-1")
    (key,) = part_keys(lake, "evaluations", "run-1")
    part = pq.read_table(io.BytesIO(lake.store.read(key)))
    older = pq.ParquetFile(io.BytesIO(lake.store.read(key))).schema_arrow.metadata
    with lake.store.writer(key) as file:
        pq.write_table(part.select(["run_id", "attempt", "step", "split", "loss", "samples", "units", "seconds", "time"])
                       .replace_schema_metadata(older), file)
    before = lake.store.read(key)
    with RecordWriter(lake.run("run-1").live(0).record(0), 0, 0) as records:
        records.write("evaluation", step=10, split="validation", loss=7.0, samples=5, units=50, seconds=0.1, accuracy=0.25)
    for _ in range(2):
        load_run(lake, "run-1")
        rows = read_rows(lake, "evaluations", "run-1", ["step", "loss", "accuracy", "macro_f1"]).to_pylist()
        assert rows == [{"step": 5, "loss": 7.5, "accuracy": None, "macro_f1": None},
                        {"step": 10, "loss": 7.0, "accuracy": 0.25, "macro_f1": None}]
    assert lake.store.read(key) == before and len(part_keys(lake, "evaluations", "run-1")) == 2


def test_every_metric_is_a_column() -> None:
    assert {"loss", *METRIC_NAMES} <= {column.split()[0] for column in TABLE_DDL["evaluations"].split(", ")}
