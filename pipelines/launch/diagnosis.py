"""Why a gang failed: the first cause, not the echoes of it.

Runs on: driver (pure).
Takes:   what each rank recorded, how the processes of some ended, what Spark said.
Gives:   one ``SparkringError`` with the right exit code, that names rank, host and step where they are known.

Example: rank 1's executor is killed. Rank 0 records "a peer left", an echo; rank 1 records nothing; Spark says
``ExecutorLostFailure``. The cause is the lost executor, and rank 1 is named, which never said how it ended.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from pipelines.errors import RankFailedError, ResourceError, SparkringError, error_of
from pipelines.launch.exits import Exit
from pipelines.launch.news import RankNews, named

TAIL_LINES = 12
MAX_REASON = 500
_TASKS_WORD = re.compile(r"^RuntimeError: (?!rank \d+ on )(.*)", re.MULTILINE)  # before it started its rank
_LOST_EXECUTOR = re.compile(r"^.*(ExecutorLostFailure.*)", re.MULTILINE)
_TELLING = re.compile(r"^(?:(?:Caused by|): )?(?:[\w.$]*(?:Error|Exception): |Reason: |ExecutorLostFailure).*", re.MULTILINE)

_FROZEN = {psutil.STATUS_STOPPED: "was stopped (SIGSTOP)", psutil.STATUS_TRACING_STOP: "was held by a debugger",
           psutil.STATUS_DISK_SLEEP: "waited for a disk or a network file system"}


@dataclass(frozen=True)
class GangFailure:
    """What Spark said of a stage that did not end well."""

    message: str
    java_end: str | None = None  # the reason where the driver's own Java process is gone


def first_cause(ranks: Sequence[RankNews], exits: Mapping[int, Exit], failure: GangFailure | None, logs: str
                ) -> SparkringError:
    """The error to show: the first line of the table below that there is.

    Args:
        failure: None where Spark saw nothing wrong. logs: where the ranks' logs are.
    """
    message = failure.message if failure is not None else ""
    own = [(rank.end["time_s"], _recorded(rank, rank.end["error"])) for rank in ranks
           if rank.end is not None and rank.end["error"] and not rank.end["error"]["peer_lost"]]
    died = [(end.time_s, _died(ranks[end.rank], end)) for end in exits.values() if ranks[end.rank].end is None]
    silent = [rank for rank in ranks if rank.end is None and rank.rank not in exits]
    lost = _java_gone(failure, ranks) or _executor_lost(message, silent)
    return (
        (_earliest(own) if lost else _earliest(own + died))  # what Spark lost took ranks along: their deaths are echoes
        or lost
        or _tasks_word(message)
        or _vanished(silent, message, logs)
        or _earliest([(rank.end["time_s"], _recorded(rank, rank.end["error"])) for rank in ranks
                      if rank.end is not None and rank.end["error"]])  # only echoes are left
        or RankFailedError("launch", f"Spark ended the gang ({telling_line(message)})", f"logs: {logs}"))


def after_the_end(exits: Mapping[int, Exit], failure: GangFailure) -> str:
    """What went wrong when all ranks had recorded that they ended well."""
    first = min((end for end in exits.values() if end.exit_code), key=lambda end: end.time_s, default=None)
    if first is None:
        return telling_line(failure.message)
    return f"rank {first.rank} on {first.host} {how_it_ended(first.exit_code)}"


def frozen(exits: Mapping[int, Exit]) -> list[str]:
    """The ranks that did not run when they were asked to end."""
    return [f"rank {end.rank} on {end.host} {_FROZEN[end.state]}" for end in exits.values() if end.state in _FROZEN]


def _recorded(rank: RankNews, error: dict[str, Any]) -> SparkringError:
    return error_of(error["exit_code"], error["place"], f"{error['problem']} (told by {rank}, {rank.reached})", error["remedy"])


def _died(rank: RankNews, end: Exit) -> SparkringError:
    lines = end.tail.strip().splitlines()[-TAIL_LINES:]
    tail = "".join(f"\n  | {line}" for line in lines)
    return error_of(end.exit_code, f"rank {end.rank} on {end.host}", f"{how_it_ended(end.exit_code)} {rank.reached}",
                    f"its whole output: {end.log}{tail}")


def _java_gone(failure: GangFailure | None, ranks: Sequence[RankNews]) -> SparkringError | None:
    if failure is None or failure.java_end is None:
        return None
    return ResourceError("Spark", f"the driver's Java process {failure.java_end}, and the ranks ended with it "
                         f"{max(ranks, key=lambda rank: rank.step).reached}",
                         "look for the reason in this machine's log; where memory is short, lower or raise spark.driver.memory")


def _executor_lost(message: str, silent: Sequence[RankNews]) -> SparkringError | None:
    reason = _LOST_EXECUTOR.search(message)
    if reason is None:
        return None
    place, what = ((named(silent), f"lost with its Spark executor {silent[0].reached}") if silent
                   else ("launch", "a Spark executor was lost"))
    return RankFailedError(place, f"{what}: {reason[1][:MAX_REASON]}",
                           "see that executor's own log; often memory ran out or its machine was taken away")


def _tasks_word(message: str) -> SparkringError | None:
    found = _TASKS_WORD.findall(message)
    return RankFailedError("launch", found[-1]) if found else None


def _vanished(silent: Sequence[RankNews], message: str, logs: str) -> SparkringError | None:
    if not silent:
        return None
    return RankFailedError(named(silent), f"gone {silent[0].reached} without a word, Spark task and all "
                           f"({telling_line(message)})", f"logs: {logs}")


def _earliest(causes: Sequence[tuple[float, SparkringError]]) -> SparkringError | None:
    return min(causes, key=lambda cause: cause[0])[1] if causes else None


def how_it_ended(exit_code: int) -> str:
    """An exit code as the rest of a sentence; below 0 it is a signal's."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    number = -exit_code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"was killed by {name}" + (" (often: out of memory)" if number == signal.SIGKILL else "")


def telling_line(message: str) -> str:
    """The telling line of Spark's message: that of the innermost error, be it Java's or Python's."""
    lines = _TELLING.findall(message) or message.strip().splitlines()[:1] or ["no message"]
    return str(lines[-1]).strip(": ")[:MAX_REASON]
