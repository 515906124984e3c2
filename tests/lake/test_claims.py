"""A claim is held by one process and freed by its end, also by SIGKILL; a run whose claim is free does not run."""

import fcntl
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest

from pipelines.errors import AlreadyRunningError
from pipelines.lake.claims import claimed, is_claimed
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordWriter, end_record
from pipelines.lake.runs import current_state
from pipelines.launch.identity import claim_run
from pipelines.track.summary import find_run, summarize
from pipelines.track.tables import load_run
from pipelines.track.verdict import verdict
from tests.track.conftest import save_state, write_steps

REFUSAL = AlreadyRunningError("here", "is not ours")
HOLD = """
import sys, time
from pipelines.launch.identity import claim_run
from pipelines.lake.paths import Lake
with claim_run(Lake.at(sys.argv[1]).run("held"), "held"):
    print("held", flush=True)
    time.sleep(100)
"""


@contextmanager
def holder(run):
    """A driver's process that holds the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.lake.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.processes
def test_a_run_whose_driver_was_killed_is_lost_wherever_it_is_shown(tmp_path):
    lake = Lake.at(tmp_path)
    run = lake.run("held")
    with holder(run) as driver:
        save_state(Lake.at(tmp_path), "held", environment={"driver": "host-a"})
        write_steps(lake, "held", 0, 0, range(1, 4))
        load_run(lake, "held")
        assert summarize(lake, "held")["status"] == "running"
        with pytest.raises(AlreadyRunningError, match="run held: is running in another process"), claim_run(run, "held"):
            pass
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        summary = summarize(lake, "held")
        assert (summary["status"], summary["exit_code"]) == ("lost", None)
        assert summary["error"].startswith("driver on host-a: ended without saying how")
        assert verdict(summary).headline == "The run was lost after step 3 of 20"
        assert find_run(lake, None).status == current_state(run).status == "lost"
    load_run(lake, "held")
    assert pq.read_table(lake.root / lake.table("runs"), columns=["status"]).to_pylist() == [{"status": "lost"}]
    with claim_run(run, "held"):  # taken up again
        assert current_state(run).status == "running"


def test_asking_who_holds_a_claim_keeps_nobody_from_taking_it(tmp_path):
    path = tmp_path / "folder" / "claim"
    assert not is_claimed(path)
    with claimed(path, REFUSAL):
        with pytest.raises(AlreadyRunningError, match="is not ours"), claimed(path, REFUSAL, patience_s=0.05):
            pass
        assert is_claimed(path)
    assert not is_claimed(path)
    path.touch()
    with open(path, "rb") as asking:  # as is_claimed does, but for longer than it ever takes
        fcntl.flock(asking, fcntl.LOCK_SH)
        threading.Timer(0.2, lambda: fcntl.flock(asking, fcntl.LOCK_UN)).start()
        with claimed(path, REFUSAL):
            assert is_claimed(path)


def test_one_at_a_time_holds_a_claim_that_many_wait_for_and_its_file_is_gone_at_the_end(tmp_path):
    path, inside, most = tmp_path / "claim", [], []

    def hold(number):
        for _ in range(20):
            with claimed(path, REFUSAL, patience_s=60):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.remove(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
    assert not path.exists()


def test_a_run_that_every_rank_recorded_as_completed_is_complete_whatever_its_driver_met(tmp_path):
    run = Lake.at(tmp_path).run("r")
    save_state(Lake.at(tmp_path), "r", status="running", environment={"driver": "host-a"})
    for rank in (0, 1):
        write_steps(Lake.at(tmp_path), "r", 0, rank, range(1, 400))
        assert end_record(run.live(0).record(rank)) is None
    end(run, 0, "completed")
    assert current_state(run).status == "lost"
    end(run, 1, "completed")
    with claim_run(run, "r"):
        assert current_state(run).status == "running"  # its driver may be about to say so itself
        assert current_state(run, ours=True).status == "completed"
    with RecordWriter(run.live(0).record(0), 0, 0) as records:
        records.write("sample", step=399, prompt="", text="x" * 200_000)
    found = current_state(run)
    assert (found.status, found.newest.exit_code, found.newest.error) == ("completed", 0, None)
    assert found.newest.ended_s == max(end_record(run.live(0).record(rank))["time_s"] for rank in (0, 1))
    save_state(Lake.at(tmp_path), "r", status="interrupted", exit_code=9)
    assert current_state(run).status == "completed"


def test_a_rank_that_failed_has_not_completed_the_run(tmp_path):
    run = Lake.at(tmp_path).run("r")
    save_state(Lake.at(tmp_path), "r", status="interrupted", exit_code=9)
    end(run, 0, "completed")
    end(run, 1, "failed")
    assert current_state(run).status == "interrupted"


def end(run, rank, status):
    with RecordWriter(run.live(0).record(rank), rank, 0) as records:
        records.write("end", step=20, status=status, error=None)
