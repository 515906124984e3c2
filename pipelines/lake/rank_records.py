"""Border 2: what a line of a rank's metric file holds.

Runs on: ranks (write), driver and executors (read).
Takes:   facts of one start, step, evaluation, sign of progress, end, or of what the model shows.
Gives:   one JSON object per line, sent to the driver's hub within a second (a killed rank loses no more than that), or appended
         to a file by a rank that has no hub; a last line without its newline is not yet a record.

Every record has ``kind``, ``rank``, ``attempt`` and ``time_s`` (Unix time). Steps count from 1. Numbers are finite
(a loss that is not stops the run, and the end record says so).

    start       replica_index segment_index num_ranks host pid start_step device threads versions{}
    step        step epoch loss* learning_rate* gradient_norm* global_units* global_samples*   (*the whole job's)
                units samples seconds data_wait_s compute_s communication_s pipeline_wait_s averaging_s memory_bytes
                                                                                                (this rank's)
    cut         schedule counts[] parts[]                                                          (of a split model)
    timeline    step began_s work[[kind part micro_batch begin_s end_s]]                        (of a split model)
    evaluation  step split loss samples units seconds, and the task's metrics (``metric_facts.py``)   (rank 0 only)
    progress    phase done* total*      (of what makes no steps: loading, evaluating, saving, compiling; *null where not known)
    end         step status error                                 status: completed | failed
    exhibits    step data[] shown[] reason    (rank 0 only, behind its end; what the data looks like and what the model shows,
                                               see ``exhibits.py``; reason says why something is missing, else it is null)
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pipelines.lake.store import storage_errors

_TAIL_BYTES = 64 * 1024


class RecordSink(Protocol):
    """Where lines go, one after the other."""

    def append(self, line: str) -> None:
        """A line without its end."""

    def flush(self) -> bool:
        """Whether all lines are where they go, waited for within a bound."""

    def close(self) -> None:
        """With what flush does."""


class RecordFile:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        """Raises StorageError when the file cannot be made."""
        self._path = path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def append(self, line: str) -> None:
        """Hands it to the operating system."""
        with storage_errors(self._path):
            self._file.write(line + "\n")
            self._file.flush()

    def flush(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()


class RecordWriter:
    """Makes one rank's records."""

    def __init__(self, to: Path | RecordSink, rank: int, attempt: int) -> None:
        """Raises StorageError when a file cannot be made."""
        self._sink: RecordSink = RecordFile(to) if isinstance(to, Path) else to
        self._rank, self._attempt = rank, attempt
        self._lock = threading.Lock()

    def write(self, kind: str, **facts: Any) -> None:
        """Appends a record."""
        line = json.dumps({"kind": kind, "rank": self._rank, "attempt": self._attempt,
                           "time_s": round(time.time(), 3), **facts}, allow_nan=False)
        with self._lock:  # a thread may tell of progress
            self._sink.append(line)

    def flush(self) -> bool:
        """Whether all records are where the driver sees them, waited for within a bound."""
        return self._sink.flush()

    def close(self) -> None:
        self._sink.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class RecordTail:
    """Reads the new whole lines of a growing record file."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new_records(self) -> list[dict[str, Any]]:
        """Records completed since the last call; none while the file does not exist."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        if not newline:
            return []
        self._offset += len(whole) + 1
        return [json.loads(line) for line in whole.split(b"\n") if line]


def end_record(path: Path) -> dict[str, Any] | None:
    """How the rank of a record file ended; None where it has not said so. Reads from the end: little follows that record."""
    length = _TAIL_BYTES
    while path.exists():
        with open(path, "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - length)
            file.seek(start)
            lines = file.read().split(b"\n")[1 if start else 0 : -1]  # whole ones
        for line in reversed(lines):
            if b'"kind": "end"' in line:
                found: dict[str, Any] = json.loads(line)
                return found
        if not start or any(b'"kind": "step"' in line for line in lines):  # no step follows an end
            return None
        length *= 2
    return None
