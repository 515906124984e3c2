"""Why a gang failed: the first cause, not the echoes of it.

Runs on: driver.
Takes:   what the ranks left in the attempt's folder: end records, exit files, logs.
Gives:   one ``SparkringError`` with the right exit code.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

from pipelines.errors import ERRORS_BY_EXIT_CODE, RankFailedError, SparkringError
from pipelines.launch.rank_process import exit_file
from pipelines.tables.paths import RunFolder
from pipelines.tables.records import RecordTail

TAIL_LINES = 12
_OWN_ERROR = "RuntimeError: "
_TELLING = re.compile(r"^[A-Za-z_]*(Error|Exception): |ExecutorLostFailure|Reason: ")  # of Python, of a lost executor


def first_cause(run: RunFolder, attempt: int, num_ranks: int, spark_message: str) -> SparkringError:
    """The error to show.

    Ranks that only lost a peer are passed over while any other failed; among the others the earliest counts.

    Args:
        spark_message: what Spark said of the failed stage, used where no rank left a word.
    """
    exits = [_read_exit(exit_file(run, attempt, rank)) for rank in range(num_ranks)]
    candidates: list[tuple[bool, float, SparkringError]] = []
    for rank, ended in enumerate(exits):
        record = next((r for r in RecordTail(run.record(attempt, rank)).new_records()
                       if r["kind"] == "end" and r.get("error")), None)
        if record is not None:
            error = record["error"]
            kind = ERRORS_BY_EXIT_CODE.get(error["exit_code"], RankFailedError)
            candidates.append((error["peer_lost"], record["time_s"],
                               kind(error["place"], error["problem"], error["remedy"])))
        elif ended is not None:
            candidates.append((False, ended["time_s"], _from_exit(run, attempt, ended)))
    if candidates:
        return min(candidates, key=lambda candidate: candidate[:2])[2]
    reason = _spark_reason(spark_message)
    if reason.startswith(_OWN_ERROR):  # of a task, before it started its rank
        return RankFailedError("launch", reason.removeprefix(_OWN_ERROR))
    return RankFailedError("launch", f"a task of the gang was lost before its rank could say why ({reason})",
                           f"logs: {run.attempt(attempt)}")


def _read_exit(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    except FileNotFoundError:
        return None


def _from_exit(run: RunFolder, attempt: int, ended: dict[str, Any]) -> RankFailedError:
    code = ended["exit_code"]
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        how += " (often: out of memory)" if -code == signal.SIGKILL else ""
    else:
        how = f"ended with exit code {code}"
    lines = ended["tail"].strip().splitlines()[-TAIL_LINES:]
    tail = "\n".join(f"  | {line}" for line in lines)
    return RankFailedError(f"rank {ended['rank']} on {ended['host']}", how,
                           f"its whole output: {run.log(attempt, ended['rank'])}" + (f"\n{tail}" if tail else ""))


def _spark_reason(message: str) -> str:
    """The telling line of a Java stack trace."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return (telling or lines or ["no message"])[-1 if telling else 0][:500]
