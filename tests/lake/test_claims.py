"""A claim is held by one process at a time, on any store, and by nobody once its holder has ended, also by SIGKILL; a run whose
claim is free does not run."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from pipelines.errors import AlreadyRunningError, StorageError
from pipelines.lake import claim_sequence, claims, holders
from pipelines.lake.claim_sequence import ClaimEntry, ClaimSequence
from pipelines.lake.claims import claimed, is_claimed
from pipelines.lake.holders import Holder
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordWriter, end_record
from pipelines.lake.runs import current_state
from pipelines.lake.store import FolderStore
from pipelines.lake.stores import store_at
from pipelines.launch.identity import claim_run
from pipelines.track.summary import find_run, summarize
from pipelines.track.tables import load_run
from pipelines.track.verdict import verdict
from tests.support.interleaving import SharedStore, interleaved
from tests.track.conftest import save_state, write_steps

ROOT = Path(__file__).resolve().parents[2]
REFUSAL = AlreadyRunningError("here", "is not ours")
KEY = "claims/runs/r/execution"
NEVER_S = 1e6  # a lease that no test waits for
TAKEN_OVER = "here: another process took it over"


@pytest.fixture(params=["folder", pytest.param("S3", marks=pytest.mark.processes)])
def store(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return FolderStore(tmp_path / "my lake")
    server = request.getfixturevalue("s3_server")
    for name, value in {**server.environment, "AWS_ENDPOINT_URL": server.endpoint_url}.items():  # for other processes, too
        monkeypatch.setenv(name, value)
    return store_at(f"s3://{server.new_bucket()}/my lake")


class OtherProcess:
    """Holds the claim as it is told, see ``tests/support/claim_holder.py``."""

    def __init__(self, store, host="", lease_s=NEVER_S, beat_s=0.05, key=KEY):
        self.process = subprocess.Popen([sys.executable, "-m", "tests.support.claim_holder", store.place(), key, host,
                                         str(lease_s), str(beat_s)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def __enter__(self):
        assert self.answer() == "ready"
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def tell(self, *words):
        print(*words, file=self.process.stdin, flush=True)

    def answer(self):
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, *words):
        self.tell(*words)
        return self.answer()

    def send(self, number):
        """Returns when the signal has done what it does."""
        self.process.send_signal(number)
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)


@dataclass(frozen=True)
class Failing(FolderStore):
    """A store that fails as ``faults`` say: each is called with the name of a call and its key, before or after it."""

    faults: list

    def create(self, key, content):
        self._fail("before create", key)
        created = super().create(key, content)
        return created if self._fail("after create", key) is None else False

    def put(self, key, content):
        self._fail("before put", key)
        super().put(key, content)

    def _fail(self, when, key):
        if self.faults and self.faults[0][0] == when:
            _, how = self.faults.pop(0)
            if how is StorageError:
                raise StorageError(key, "the answer got lost")
            return how
        return None


def other_host(monkeypatch):
    """From now on this process is on another host than those before it."""
    monkeypatch.setattr(holders, "host_facts", lambda: ("another host", "its boot", "its namespace"))


def taken(store, patience_s=0.0):
    return claimed(store, KEY, REFUSAL, patience_s)


def refused(store, patience_s=0.0):
    with pytest.raises(AlreadyRunningError, match="here: is not ours"), taken(store, patience_s):
        pass
    return True


def test_an_ended_claim_leaves_one_small_object_and_no_thread(store):
    assert not is_claimed(store, KEY)
    for _ in range(3):
        with taken(store) as claim:
            claim.check()
            claim.check()
            assert is_claimed(store, KEY)
        assert not is_claimed(store, KEY)
    assert store.names(KEY) == ["000012.json"]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("claim")]


def test_two_claims_of_one_process_exclude_each_other_and_two_keys_do_not(store):
    with taken(store), claimed(store, "claims/runs/r/load", REFUSAL):
        assert refused(store)
        assert is_claimed(store, KEY)
    with taken(store):
        pass


def test_one_at_a_time_holds_a_claim_that_many_threads_wait_for(store):
    inside, most = [], []

    def hold(number):
        for _ in range(10):
            with taken(store, patience_s=60):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.remove(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 40
    assert len(store.names(KEY)) == 1


@contextmanager
def processes(store, number):
    """Started together: most of their start is Python's."""
    others = [OtherProcess(store) for _ in range(number)]
    try:
        for other in others:
            other.__enter__()
        yield others
    finally:
        for other in others:
            other.__exit__()


@pytest.mark.processes
def test_of_eight_processes_that_want_a_claim_at_once_one_holds_it_and_then_each_has_its_turns(store, tmp_path):
    with processes(store, 8) as others:
        for other in others:
            other.tell("take", 0.3)
        assert sorted(other.answer() for other in others) == ["done"] + ["here: refused"] * 7
        for other in others:
            other.ask("give")
        for other in others:
            other.tell("turns", 5, tmp_path / "log")
        assert [other.answer() for other in others] == ["done"] * 8
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * 40
    assert len(store.names(KEY)) == 1


@pytest.mark.processes
def test_a_killed_holder_on_this_host_is_seen_at_once_before_anybody_waits_for_its_end(store, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_S", NEVER_S)
    with OtherProcess(store) as other:
        assert other.ask("take", 0) == "done"
        assert is_claimed(store, KEY) and refused(store)
        other.send(signal.SIGKILL)  # it is a zombie now
        assert not is_claimed(store, KEY)
        with taken(store) as claim:
            claim.check()
    assert len(store.names(KEY)) == 1


@pytest.mark.processes
def test_a_process_that_has_the_number_of_a_dead_holder_is_none(store):
    with OtherProcess(store) as other:
        assert other.ask("take", 0) == "done"
        (name,) = [name for name in store.names(KEY) if name.endswith(".json")]
        entry = json.loads(store.read(f"{KEY}/{name}"))
        store.put(f"{KEY}/{name}", json.dumps(entry | {"started": "1"}))
        with taken(store) as claim:
            claim.check()


@pytest.mark.processes
def test_a_holder_on_another_host_whose_heart_beats_is_refused_without_waiting_for_the_lease(store, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_S", NEVER_S)
    with OtherProcess(store, "host-b") as other:
        assert other.ask("take", 0) == "done"
        assert refused(store)
        assert other.ask("check") == "done"
        assert other.ask("give") == "done"
        with taken(store):
            pass


@pytest.mark.processes
@pytest.mark.parametrize("times", [1, 2])
def test_a_holder_that_stands_still_for_a_lease_is_taken_over_and_fails_at_its_next_step(store, monkeypatch, times):
    monkeypatch.setattr(claims, "LEASE_S", 0.6)
    with OtherProcess(store, "host-b", beat_s=NEVER_S) as other:
        assert other.ask("take", 0) == "done"
        other.send(signal.SIGSTOP)
        for _ in range(times - 1):  # numbers that it is going to try are gone by then
            with taken(store) as claim:
                claim.check()
        with taken(store) as claim:
            other.process.send_signal(signal.SIGCONT)
            assert other.ask("check").startswith(TAKEN_OVER)
            claim.check()
            assert other.ask("check").startswith(TAKEN_OVER)
            assert other.ask("give") == "done"
            claim.check()
            assert is_claimed(store, KEY)
    assert len(store.names(KEY)) == 1


def test_a_holder_notices_by_its_beat_that_it_was_taken_over_and_stops_beating(store, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.02)
    with taken(store) as claim:
        wait_until(lambda: beats(store))
        monkeypatch.setattr(claims, "_ours", set[str]())  # as if this process were another that took the first for dead
        with taken(store) as another:
            with pytest.raises(AlreadyRunningError, match=TAKEN_OVER):
                while True:
                    claim.raise_if_lost()
                    time.sleep(0.01)
            wait_until(lambda: beats(store) == [f"beat-{another._entry.token}"])
            another.check()
        claims._ours.add(claim._entry.token)  # which the block takes out at its end
    assert len(store.names(KEY)) == 1


def test_a_claim_of_which_nothing_can_be_told_is_taken_over_after_a_lease(store, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_S", 0.1)
    store.put(f"{KEY}/000041.json", "{")
    with taken(store):
        assert "000042.json" in store.names(KEY)


@pytest.mark.parametrize("number", range(3), ids=["to take it", "to go on", "to give it back"])
@pytest.mark.parametrize("how", [StorageError, False])
def test_a_step_whose_answer_got_lost_was_done(tmp_path, number, how):
    store = Failing(tmp_path, [("after create", None)] * number + [("after create", how)])
    with taken(store) as claim:
        claim.check()
    assert store.names(KEY) == ["000003.json"]
    assert not store.faults and not is_claimed(store, KEY)
    with taken(store):
        pass


def test_a_step_that_failed_and_was_done_later_all_the_same_is_gone_on_from(tmp_path):
    store = Failing(tmp_path, [])
    with taken(store) as claim:
        store.faults[:] = [("before create", StorageError)]
        with pytest.raises(StorageError):
            claim.check()
        late = json.loads(store.read(f"{KEY}/000001.json"))
        store.create(f"{KEY}/000002.json", json.dumps(late | {"time_s": 1.0}))  # the request was on its way for long
        claim.check()
    assert store.names(KEY) == ["000004.json"]


def test_a_store_that_fails_for_a_while_is_told_of_once_and_the_claim_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(claims, "BEAT_S", 0.02)
    store = Failing(tmp_path, [("before put", StorageError)] * 5)
    with caplog.at_level(logging.WARNING), taken(store) as claim:
        wait_until(lambda: beats(store))
        assert not store.faults
        claim.check()
    assert [record.message.partition(",")[0] for record in caplog.records] == [f"the claim {KEY} cannot be renewed now"]


def test_a_claim_that_could_not_be_given_back_is_free_for_this_process(tmp_path, caplog):
    store = Failing(tmp_path, [])
    with pytest.raises(ZeroDivisionError), taken(store):
        store.faults[:] = [("before create", StorageError)]
        raise ZeroDivisionError
    assert "could not be given back" in caplog.text
    assert not is_claimed(store, KEY)
    with taken(store):
        pass


@pytest.mark.parametrize(("age_s", "shown"), [(10.0, True), (50.0, True), (-50.0, True), (70.0, False)])
def test_a_holder_on_another_host_is_shown_while_its_clock_says_so(store, monkeypatch, age_s, shown):
    store.create(f"{KEY}/000001.json", ClaimEntry(1, True, "t", time.time() - 1000, Holder("b", "c", "d", 5, "6")).content)
    assert not is_claimed(store, KEY)
    store.put(f"{KEY}/beat-t", json.dumps({"beats": 3, "time_s": time.time() - age_s}))
    assert is_claimed(store, KEY) == shown
    other_host(monkeypatch)
    assert is_claimed(store, KEY) == shown


def test_however_many_take_turns_at_a_store_each_number_is_one_holders_and_older_ones_fail(monkeypatch):
    monkeypatch.setattr(claim_sequence, "_AGAIN_S", 0.0)
    for seed in range(400):
        store, added = SharedStore(Random(seed)), []
        interleaved(store, [lambda token=token, store=store, added=added: contend(store, token, added) for token in "abc"])
        numbers = [number for _, _, number in added]
        assert len(set(numbers)) == len(numbers) > 0, f"seed {seed}: {added}"
        late = [(first, second) for first in added for second in added if first[1] < second[0] and first[2] > second[2]]
        assert not late, f"seed {seed}: {late}"
        sequence = ClaimSequence(store, KEY)
        while not sequence.add(ClaimEntry(max(numbers) + 1, False, "end", 0.0, Holder())):
            numbers.append(max(numbers) + 1)
        assert len(store.objects) == 1, f"seed {seed}: {store.objects}"


def contend(store, token, added):
    """Takes whoever has the claim for dead, whenever it likes, and does a few steps."""
    sequence = ClaimSequence(store, KEY)
    for turn in range(3):
        newest = sequence.newest()
        number, mine = (0 if newest is None else newest.number), True
        while mine and store.random.random() < 0.8:
            number, began = number + 1, time.perf_counter_ns()
            mine = sequence.add(ClaimEntry(number, store.random.random() < 0.8, f"{token}{turn}", 0.0, Holder()))
            if mine:
                added.append((began, time.perf_counter_ns(), number))
                sequence.beat(f"{token}{turn}", number)


def beats(store):
    return [name for name in store.names(KEY) if name.startswith("beat-")]


def wait_until(holds):
    while not holds():
        time.sleep(0.005)


@pytest.mark.processes
def test_a_run_whose_driver_was_killed_is_lost_wherever_it_is_shown(tmp_path):
    lake = Lake.at(tmp_path)
    run = lake.run("held")
    with OtherProcess(lake.store, key=run.claim) as driver:
        assert driver.ask("take", 0) == "done"
        save_state(Lake.at(tmp_path), "held", environment={"driver": "host-a"})
        write_steps(lake, "held", 0, 0, range(1, 4))
        load_run(lake, "held")
        assert summarize(lake, "held")["status"] == "running"
        with pytest.raises(AlreadyRunningError, match="run held: is running in another process"), claim_run(run, "held"):
            pass
        driver.send(signal.SIGKILL)
        summary = summarize(lake, "held")
        assert (summary["status"], summary["exit_code"]) == ("lost", None)
        assert summary["error"].startswith("driver on host-a: ended without saying how")
        assert verdict(summary).headline == "The run was lost after step 3 of 20"
        assert find_run(lake, None).status == current_state(run).status == "lost"
    load_run(lake, "held")
    assert pq.read_table(tmp_path / lake.table("runs"), columns=["status"]).to_pylist() == [{"status": "lost"}]
    with claim_run(run, "held"):  # taken up again
        assert current_state(run).status == "running"


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
