"""The first cause is shown, not its echoes; output that is no text does not hide it."""

import json
import sys
import time

import pytest

from pipelines.errors import DataError, RankFailedError
from pipelines.launch.diagnosis import first_cause
from pipelines.launch.rank_process import _write_exit, exit_file
from pipelines.tables.paths import RunFolder
from pipelines.tables.records import RecordWriter


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "r")
    folder.attempt(0).mkdir(parents=True)
    return folder


def end_record(run, rank, peer_lost, exit_code=6, place="step 3", problem="bad"):
    with RecordWriter(run.record(0, rank), rank, 0) as records:
        records.write("end", step=None, status="failed", error={
            "exit_code": exit_code, "place": place, "problem": problem, "remedy": "", "peer_lost": peer_lost})


def test_the_rank_that_failed_is_named_and_not_the_one_that_missed_it(run):
    end_record(run, 0, peer_lost=True, place="rank 0", problem="a peer left")
    time.sleep(0.01)
    end_record(run, 1, peer_lost=False, exit_code=3, place="train-00000.parquet", problem="is damaged")
    error = first_cause(run, 0, 2, "")
    assert isinstance(error, DataError)
    assert str(error) == "train-00000.parquet: is damaged"


def test_a_rank_that_died_without_a_word_is_named_with_its_signal_and_output(run):
    end_record(run, 0, peer_lost=True)
    run.log(0, 1).write_bytes(b"first line\n\xff\xfe not UTF-8 \x80\nlast line\n")
    _write_exit(run, 0, 1, "host-b", -9)
    error = first_cause(run, 0, 2, "")
    assert isinstance(error, RankFailedError)
    assert str(error).startswith("rank 1 on host-b: was killed by SIGKILL (often: out of memory)")
    assert "| last line" in str(error)
    assert "\ufffd" in str(error)


def test_only_the_end_of_a_long_output_is_kept(run):
    run.log(0, 0).write_bytes(b"x" * 100_000 + b"\nthe end\n")
    _write_exit(run, 0, 0, "host", 1)
    assert json.loads(exit_file(run, 0, 0).read_text())["tail"].endswith("the end\n")
    assert exit_file(run, 0, 0).stat().st_size < 10_000


def test_a_lost_executor_is_told_in_one_line_of_sparks(run):
    message = "Job aborted\n\tat org.apache.spark.Foo\nReason: Executor heartbeat timed out\n\tat java.lang.Thread"
    error = first_cause(run, 0, 2, message)
    assert "Reason: Executor heartbeat timed out" in str(error)
    assert "java.lang" not in str(error)
    assert sys.getsizeof(str(error)) < 2000


def test_what_a_task_says_of_its_host_is_the_error(run):
    message = ("org.apache.spark.SparkException: Job aborted\n\tat org.apache.spark.Foo\nTraceback (most recent call last):\n"
               "RuntimeError: host h1: its name has no address; add it\n\n\tat java.lang.Thread")
    assert str(first_cause(run, 0, 2, message)) == "launch: host h1: its name has no address; add it"
