"""Tables that grow while the run goes on.

Runs on: driver (a thread beside the launcher).
Takes:   the lake and a run.
Gives:   rows in the tables a few seconds after the ranks recorded them.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from types import TracebackType

from pipelines.errors import SparkringError
from pipelines.lake.paths import Lake
from pipelines.track.tables import load_run

log = logging.getLogger(__name__)
STOP_TIMEOUT_S = 10.0
LONGEST_INTERVAL_S = 600.0
INTERVALS_OF_AGE = 30  # after 2.5 minutes every 5 s, after half an hour every minute, after 5 hours every 10 minutes


class LiveLoader:
    """Loads a run every ``interval_s`` seconds between enter and exit; more seldom the longer it goes on, since each load puts a
    part (``parts.py``) into ``steps`` and ``rank_steps``, and many small files are slow to read.

    From the start on every 5 s; later after a thirtieth of its age, at most after 10 minutes. So a run of 2.5 minutes has 30
    parts a table, of 20 minutes 90, of 5 hours 175, of a month 4,500. Whoever asks for a report loads what is there by then.

    A fault in it never stops the training: it is said once in the log, kept in ``error``, and the load tried again.
    The load that completes the tables at the end is the caller's (``load_run``), after exit.
    """

    def __init__(self, lake: Lake, run_id: str, interval_s: float = 5.0) -> None:
        self.error: BaseException | None = None  # of the newest load; None when it went well
        self._lake, self._run_id, self._interval_s = lake, run_id, interval_s
        self._said: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._load_until_stopped, name=f"live-loader-{run_id}", daemon=True)

    def __enter__(self) -> LiveLoader:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Waits for a load under way, at most STOP_TIMEOUT_S: what it leaves unfinished, the next load does."""
        self._stopping.set()
        self._thread.join(STOP_TIMEOUT_S)

    def _load_until_stopped(self) -> None:
        began = time.monotonic()
        while not self._stopping.wait(self.interval_s(time.monotonic() - began)):
            if self._lake.store.facts(self._lake.run(self._run_id).state) is not None:  # not before the run has begun
                self._load()

    def interval_s(self, age_s: float) -> float:
        """Until the next load, so long after the first."""
        return max(self._interval_s, min(age_s / INTERVALS_OF_AGE, LONGEST_INTERVAL_S))

    def _load(self) -> None:
        with ExitStack() as stack:
            stack.push(self._keep)
            load_run(self._lake, self._run_id)

    def _keep(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Whatever a load fails of, the next one is tried."""
        self.error = error
        said = str(error) if isinstance(error, SparkringError) else repr(error)
        if error is not None and said not in self._said:
            self._said.add(said)
            log.warning("metrics of run %s are not in the tables yet: %s", self._run_id, said)
        return True
