"""The driver's wait, with a gang that is played: what counts as news, as complete, as a failure."""

import logging
import threading
import time

import pytest

from pipelines.config.platform import Launch
from pipelines.errors import AlreadyRunningError, InterruptedRunError, RankFailedError, StalledError, StorageError
from pipelines.lake.live_folder import LiveFolder
from pipelines.lake.rank_records import RecordWriter
from pipelines.launch.diagnosis import GangFailure
from pipelines.launch.exits import exit_facts, told_exit
from pipelines.launch.news import News
from pipelines.launch.observer import Guarded
from pipelines.launch.watch import watch

BOUNDS = Launch(start_timeout_s=5.0, stall_timeout_s=0.6)
LOST = GangFailure("ExecutorLostFailure (executor 0 exited) Reason: Command exited with code 137")


class Played:
    """A gang of two ranks whose acts are played one per wait; then it ends as told, or never."""

    def __init__(self, folder, acts, failure=None, *, ends=True):
        self.live = LiveFolder(folder / "attempt-000")
        self.failure, self._acts, self._ends, self.lost = failure, list(acts), ends, False
        self.fault, self.ended, self.running = None, {}, {}
        self.observer, self.seen, self.news = self, [], News(self.live, 2)
        for rank in (0, 1):
            self.tell(rank, "start", host=f"host-{rank}")

    def tell(self, rank, kind, **facts):
        with RecordWriter(self.live.record(rank), rank, 0) as records:
            records.write(kind, **facts)

    def wait(self, timeout_s):
        if self._acts:
            self._acts.pop(0)(self)
            return False
        time.sleep(timeout_s)
        return self._ends

    def close(self):
        """As the rendezvous."""

    def exits(self):
        """As the hub."""
        return self.ended

    def logs(self):
        return self.running

    def ranks_met(self, plan, starts):
        self.seen.append(("met", len(starts)))

    def on_record(self, record):
        self.seen.append((record["kind"], record.get("step")))

    def say(self, line):
        self.seen.append(("said", line))

    def watch(self):
        watch(self, self, self, self.news, BOUNDS, None, self.observer, self)

    def raise_if_lost(self):
        """As the run's claim."""
        if self.lost:
            raise AlreadyRunningError("run r", "another process took it over")


def step(rank, number):
    return lambda gang: gang.tell(rank, "step", step=number)


def end(rank, status="completed", **error):
    told = {"exit_code": 6, "place": f"rank {rank}", "problem": "a peer left", "remedy": "", "peer_lost": True, **error}
    return lambda gang: gang.tell(rank, "end", status=status, error=None if status == "completed" else told)


def progress(rank, phase):
    def act(gang):
        time.sleep(0.4)
        gang.tell(rank, "progress", phase=phase, step=1)
    return act


def test_a_run_is_complete_when_every_rank_said_so_whatever_happened_to_spark_then(tmp_path):
    gang = Played(tmp_path, [step(0, 1), step(1, 1), end(1), end(0)], LOST)
    gang.watch()
    ((_, line),) = [seen for seen in gang.seen if seen[0] == "said"]
    assert line.startswith("the run is complete; what followed its end failed: ")
    assert "code 137" in line


def test_a_gang_that_ended_without_every_ranks_word_has_failed(tmp_path):
    gang = Played(tmp_path, [step(0, 4), step(1, 4), end(0), lambda gang: _exit(gang, 1, 0)])
    with pytest.raises(RankFailedError, match="rank 1 on host-1: ended with exit code 0 after step 4"):
        gang.watch()


def _exit(gang, rank, code):
    log = b"first line\n" + b"x" * 100_000 + b"\n\xff\xfe not UTF-8\nlast line\n"
    gang.ended[rank] = told_exit(rank, exit_facts(f"host-{rank}", code), log, str(gang.live.log(rank)))


def test_output_that_is_no_text_does_not_hide_the_cause_and_only_its_end_is_kept(tmp_path):
    gang = Played(tmp_path, [lambda gang: _exit(gang, 1, -9)], GangFailure(""))
    with pytest.raises(RankFailedError, match="was killed by SIGKILL") as caught:
        gang.watch()
    assert str(caught.value).endswith("\n  | \ufffd\ufffd not UTF-8\n  | last line")
    assert len(gang.ended[1].tail) < 10_000


def test_a_rank_that_is_gone_without_a_word_is_told_with_the_place_of_its_log(tmp_path):
    gang = Played(tmp_path, [step(0, 4), end(0)], GangFailure("Reason: lost"))
    gang.running = {1: "host-1:/tmp/sparkring-r-attempt-000-rank-00001-x.log"}
    with pytest.raises(RankFailedError, match="rank 1 on host-1: gone .*logs: .*attempt-000, host-1:/tmp/sparkring-r-attempt"):
        gang.watch()


def test_records_that_cannot_be_kept_end_the_run(tmp_path):
    gang = Played(tmp_path, [step(0, 1)], ends=False)
    gang.fault = StorageError("the folder", "records cannot be written: No space left on device")
    with pytest.raises(StorageError, match="No space left"):
        gang.watch()


def test_a_rank_that_lost_a_peer_may_say_so_a_moment_after_spark_did(tmp_path):
    gang = Played(tmp_path, [step(0, 4), step(1, 4)], LOST)
    late = threading.Timer(0.4, lambda: end(0, "failed")(gang))
    late.start()
    with pytest.raises(RankFailedError, match="^rank 1 on host-1: lost with its Spark executor after step 4"):
        gang.watch()
    late.join()


def test_a_record_of_any_kind_from_any_rank_is_news(tmp_path):
    gang = Played(tmp_path, [step(0, 1), progress(1, "evaluating"), progress(1, "saving"), progress(0, "saving"), end(0), end(1)])
    gang.watch()  # 1.2 s without a step, where 0.6 s of silence are allowed
    assert ("progress", 1) in gang.seen


def test_silence_is_told_with_the_ranks_that_are_behind_and_what_they_did(tmp_path):
    gang = Played(tmp_path, [step(0, 2), step(1, 1), progress(1, "evaluating")], ends=False)
    with pytest.raises(StalledError, match=r"no rank has recorded anything for 0.6 s; the oldest news is of rank 1 on host-1: "
                                           "after step 1, evaluating"):
        gang.watch()


def test_silence_of_ranks_that_have_all_said_that_they_failed_is_bounded_too(tmp_path):
    gang = Played(tmp_path, [step(0, 2), end(0, "failed"), end(1, "failed")], ends=False)
    with pytest.raises(StalledError, match=r"the oldest news is of rank 1 on host-1: before its first step, ended"):
        gang.watch()


def test_ranks_that_do_not_leave_a_complete_run_are_not_waited_for_without_end(tmp_path):
    gang = Played(tmp_path, [end(0), end(1)], ends=False)
    gang.watch()
    assert gang.seen[-1][1].startswith("the run is complete, but its ranks have not left for 0.6 s")


def test_an_observer_that_fails_ends_what_it_shows_and_not_the_run(tmp_path, caplog):
    def fail(record):
        raise KeyError(record["kind"])

    gang = Played(tmp_path, [step(0, 1), step(0, 2), end(0), end(1)])
    gang.on_record = fail
    gang.observer = Guarded(gang)
    with caplog.at_level(logging.WARNING):
        gang.watch()
    assert [record.getMessage() for record in caplog.records] == [
        "progress is no longer shown, the run goes on: KeyError('step')"]


def test_an_interrupt_that_arrives_while_an_observer_is_told_is_no_fault_of_it(tmp_path):
    def interrupted(record):
        raise InterruptedRunError("SIGTERM", "the run was asked to stop")

    gang = Played(tmp_path, [step(0, 1)], ends=False)
    gang.on_record = interrupted
    gang.observer = Guarded(gang)
    with pytest.raises(InterruptedRunError):
        gang.watch()


def test_a_gang_whose_run_another_process_took_over_is_not_watched_to_its_end(tmp_path):
    gang = Played(tmp_path, [step(0, 1), lambda gang: setattr(gang, "lost", True)], ends=False)
    with pytest.raises(AlreadyRunningError, match="took it over"):
        gang.watch()
