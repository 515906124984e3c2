"""The first cause is shown, not its echoes, with rank, host and step; pure: no process, no file."""

import pytest

from pipelines.errors import ConfigError, DataError, RankFailedError, ResourceError
from pipelines.launch.diagnosis import GangFailure, after_the_end, first_cause, frozen
from pipelines.launch.exits import Exit
from pipelines.launch.news import RankNews

LOST = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Could not recover from a failed barrier ResultStage. \
Most recent failure reason: Stage failed because barrier task ResultTask(0, 1) finished unsuccessfully.
ExecutorLostFailure (executor 0 exited caused by one of the running tasks) Reason: Command exited with code 137
\tat org.apache.spark.scheduler.DAGScheduler.$anonfun$abortStage$3(DAGScheduler.scala:2935)
"""
TRACE = """org.apache.spark.SparkException: Job aborted
\tat org.apache.spark.Foo
Traceback (most recent call last):
RuntimeError: {}

\tat java.lang.Thread
"""


def rank(number, step=0, end=None, host=None):
    start = {"host": host or f"host-{number}"}
    return RankNews(number, heard_s=0.0, start=start, step=step, end=end)


def failed(time_s, peer_lost=False, exit_code=6, place="here", problem="is bad"):
    return {"kind": "end", "time_s": time_s, "status": "failed", "error": {
        "exit_code": exit_code, "place": place, "problem": problem, "remedy": "", "peer_lost": peer_lost}}


ECHO = failed(1.0, peer_lost=True, place="rank 0", problem="a peer left")
COMPLETED = {"kind": "end", "time_s": 1.0, "status": "completed", "error": None}


def ended(number, exit_code, time_s=2.0, state="", tail=""):
    return {number: Exit(number, f"host-{number}", exit_code, time_s, state, tail, f"/logs/{number}.log")}


def cause(ranks, exits=None, message="", java_end=None):
    return first_cause(ranks, exits or {}, GangFailure(message, java_end), "/logs")


def test_the_rank_that_failed_is_named_and_not_the_one_that_missed_it():
    error = cause([rank(0, 3, ECHO), rank(1, 3, failed(2.0, exit_code=3, place="train-00000.parquet", problem="is damaged"))],
                  ended(0, 6) | ended(1, 3), TRACE.format("rank 0 on host-0 ended with 6"))
    assert isinstance(error, DataError)
    assert str(error) == "train-00000.parquet: is damaged (told by rank 1 on host-1, after step 3)"


@pytest.mark.parametrize("kind", [ConfigError, DataError, ResourceError, RankFailedError])
def test_an_error_keeps_its_kind_on_the_way_from_its_rank(kind):
    error = cause([rank(0, 0, failed(2.0, exit_code=kind.exit_code, place="model.factory", problem="cannot be used"))])
    assert type(error) is kind
    assert str(error) == "model.factory: cannot be used (told by rank 0 on host-0, before its first step)"


def test_the_earliest_of_several_causes_counts_whichever_way_it_was_told():
    said, died = failed(5.0, problem="is bad"), ended(1, -11, time_s=4.0)
    assert "killed by SIGSEGV after step 7" in str(cause([rank(0, 7, said), rank(1, 7)], died))
    assert "is bad" in str(cause([rank(0, 7, said), rank(1, 7)], ended(1, -11, time_s=6.0)))


@pytest.mark.parametrize(("exit_code", "kind"), [(5, ResourceError), (1, RankFailedError), (-9, RankFailedError)])
def test_a_rank_that_refused_before_its_first_record_keeps_its_exit_code(exit_code, kind):
    error = cause([rank(0, 0, ECHO), rank(1, 0)], ended(1, exit_code, tail="error: layout.device: cuda: no usable GPU"))
    assert type(error) is kind
    assert "rank 1 on host-1" in str(error) and "no usable GPU" in str(error)


def test_a_rank_that_died_without_a_word_is_named_with_its_signal_step_and_output():
    error = cause([rank(0, 12, ECHO), rank(1, 12)], ended(1, -9, tail="first line\nlast line\n"))
    assert isinstance(error, RankFailedError)
    assert str(error) == ("rank 1 on host-1: was killed by SIGKILL (often: out of memory) after step 12; its whole output: "
                          "/logs/1.log\n  | first line\n  | last line")
    assert "was killed by signal 63 before its first step" in str(cause([rank(0, 12, ECHO), rank(1)], ended(1, -63)))


def test_a_rank_that_left_as_if_all_were_done_is_the_cause():
    assert str(cause([rank(0, 12, ECHO), rank(1, 12)], ended(0, 6) | ended(1, 0), TRACE.format("rank 0 on host-0 ended with 6"))
               ).startswith("rank 1 on host-1: ended with exit code 0 after step 12")


def test_a_lost_executor_is_told_with_sparks_reason_and_the_rank_that_never_ended():
    error = cause([rank(0, 13, ECHO), rank(1, 12)], ended(0, 6), LOST)
    assert isinstance(error, RankFailedError)
    assert str(error).startswith("rank 1 on host-1: lost with its Spark executor after step 12: ExecutorLostFailure (executor 0 "
                                 "exited caused by one of the running tasks) Reason: Command exited with code 137; see")
    assert "\tat" not in str(error)


def test_what_crashes_because_an_executor_was_lost_is_an_echo_but_an_error_of_a_ranks_own_is_none():
    assert "ExecutorLostFailure" in str(cause([rank(0, 12), rank(1, 12)], ended(0, -6), LOST))
    assert "is bad" in str(cause([rank(0, 12, failed(1.0)), rank(1, 12)], {}, LOST))


def test_a_lost_executor_whose_echo_came_first_is_known_by_the_rank_that_is_silent():
    error = cause([rank(0, 13, ECHO), rank(1, 12)], ended(0, 6), TRACE.format("rank 0 on host-0 ended with 6"))
    assert str(error).startswith("rank 1 on host-1: gone after step 12 without a word, Spark task and all")


def test_the_drivers_java_that_was_killed_is_the_cause_and_not_a_task():
    error = cause([rank(0, 5), rank(1, 6)], {}, "ConnectionRefusedError: [Errno 111]", "was killed by SIGKILL")
    assert isinstance(error, ResourceError)
    assert str(error).startswith(
        "Spark: the driver's Java process was killed by SIGKILL, and the ranks ended with it after step 6")


def test_only_when_nothing_else_is_known_an_echo_is_told():
    assert str(cause([rank(0, 3, ECHO), rank(1, 3, ECHO)])) == "rank 0: a peer left (told by rank 0 on host-0, after step 3)"


def test_a_lost_executor_before_any_rank_started_is_told_in_one_line_of_sparks():
    message = "Job aborted\n\tat org.apache.spark.Foo\nReason: Executor heartbeat timed out\n\tat java.lang.Thread"
    error = cause([RankNews(0, 0.0), RankNews(1, 0.0)], {}, message)
    assert str(error) == ("rank 0, rank 1: gone before its first step without a word, Spark task and all "
                          "(Reason: Executor heartbeat timed out); logs: /logs")


def test_what_a_task_says_of_its_host_is_the_error():
    error = cause([RankNews(0, 0.0), RankNews(1, 0.0)], {}, TRACE.format("host h1: its name has no address; add it"))
    assert str(error) == "launch: host h1: its name has no address; add it"


@pytest.mark.parametrize(("exits", "told"), [
    (ended(0, -9) | ended(1, 0, time_s=1.0), "rank 0 on host-0 was killed by SIGKILL (often: out of memory)"),
    ({}, "Reason: Command exited with code 137")])
def test_what_befell_a_run_behind_its_end_is_told_in_a_line(exits, told):
    assert told in after_the_end(exits, GangFailure(LOST))


def test_a_rank_that_was_found_stopped_is_named():
    assert frozen(ended(0, -15, state="sleeping") | ended(1, -9, state="stopped")) == ["rank 1 on host-1 was stopped (SIGSTOP)"]


def test_a_fault_of_the_configuration_that_only_ranks_can_see_is_one():
    error = first_cause([rank(0, end=failed(1.0, exit_code=2, place="model"))], {}, None, "/logs")
    assert isinstance(error, ConfigError)
    assert str(error).startswith("model: is bad (told by rank 0 on host-0")
