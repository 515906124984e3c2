"""One thread that reads ahead, the ring of steps that it fills, and the hand-over to the training thread.

Runs on: ranks.
Takes:   a function that fills steps, in any order within the ring's span.
Gives:   complete steps, each copied out once; whatever went wrong in the thread, raised in the training thread.

A row is copied twice: scattered into the ring while the row group is in hand, and out of it with its whole step. The
ring is allocated once and is all that waits: ``num_steps * samples_per_step * row_bytes``.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType

import numpy as np

from pipelines.errors import StalledError
from pipelines.feed.checked_shards import NO_SAMPLE, Rows, reason_of
from pipelines.feed.lanes import Integers
from pipelines.lake.task_facts import Column

CLOSE_TIMEOUT_S = 10.0  # a read in progress is waited for, no longer than this
# A dataset of a few rows need not be read thousands of epochs ahead; one of large windows is read a window ahead, or
# training would wait while all lanes begin their next windows.
MAX_AHEAD_STEPS = 256
# Complete steps are copied out together up to this size: many small copies would keep Python from the reading thread.
TAKEN_BYTES = 1024**2
ROW_GROUP_COPIES = 8  # one in hand, three coming; what two decoders read them from: pages, compressed and not


def ring_steps(window_steps: int, step_bytes: int, read_ahead_bytes: int) -> int:
    """Steps that a feed's ring has room for: all lanes' open windows, and those read ahead."""
    return window_steps + min(max(1, read_ahead_bytes // step_bytes), max(MAX_AHEAD_STEPS, window_steps))


def feed_bytes(window_steps: int, step_bytes: int, row_group_bytes: int, read_ahead_bytes: int) -> int:
    """What a training feed holds at most.

    Args:
        window_steps: ``LaneOrder.max_window_steps``. step_bytes: of one replica's samples. row_group_bytes: of the largest.
    """
    return (ring_steps(window_steps, step_bytes, read_ahead_bytes) * step_bytes + 2 * max(TAKEN_BYTES, step_bytes)
            + ROW_GROUP_COPIES * row_group_bytes)


class StepRing:
    """Room for ``num_steps`` consecutive steps; step ``s`` lies at ``s % num_steps``. Not locked: see ReadAhead."""

    def __init__(self, num_steps: int, samples_per_step: int, columns: tuple[Column, ...]) -> None:
        self.num_steps, self.samples_per_step = num_steps, samples_per_step
        places = num_steps * samples_per_step
        self._columns, self.samples_put = columns, 0
        self._ring = Rows({column.name: np.empty((places, *column.shape), column.dtype) for column in columns},
                          np.full(places, NO_SAMPLE, np.int64))

    @staticmethod
    def row_bytes(columns: Iterable[Column]) -> int:
        return sum(column.row_bytes for column in columns) + 8  # and the sample's id

    @property
    def bytes(self) -> int:
        return len(self._ring) * self.row_bytes(self._columns)

    def put(self, places_B: Integers, rows: Rows) -> None:
        """Scatters rows; ``places_B`` counts them from the run's first step on."""
        at_B = places_B % len(self._ring)
        for name, values in rows.columns.items():
            self._ring.columns[name][at_B] = values
        self._ring.sample_ids_B[at_B] = rows.sample_ids_B
        self.samples_put += len(rows)

    def steps_to_end(self, step: int) -> int:
        """Steps from this one to the ring's end, that lie one after the other."""
        return self.num_steps - step % self.num_steps

    def take(self, step: int, steps: int) -> Rows:
        """Copies steps out, with padding where no sample was put, and leaves their places empty."""
        begin = step % self.num_steps * self.samples_per_step
        here = self._ring[slice(begin, begin + steps * self.samples_per_step)]
        taken = Rows.joined([here])
        padding_B = taken.sample_ids_B == NO_SAMPLE
        if padding_B.any():
            for column in self._columns:
                taken.columns[column.name][padding_B] = column.filling
        here.sample_ids_B[:] = NO_SAMPLE
        return taken


class ReadAhead:
    """Runs ``fill`` in a thread, which may write steps ``[taken, taken + ring.num_steps)`` and says which are complete.

    The thread writes only what is not complete and the training thread reads only what is, so the ring needs no lock.
    """

    def __init__(self, ring: StepRing, first_step: int, fill: Callable[[ReadAhead], None], place: str) -> None:
        self._ring, self._fill, self._place = ring, fill, place
        self._next_step = self._complete = first_step  # to be taken; all before it are filled
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        atexit.register(self.close)  # a thread still in Arrow's code while Python ends would abort the process
        self._thread.start()

    def announce(self, complete: int) -> None:
        """Thread: all steps before ``complete`` are filled."""
        if complete > self._complete:  # only this thread writes it
            with self._changed:
                self._complete = complete
                self._changed.notify_all()

    def wait_for_room(self, last_step: int) -> bool:
        """Thread: waits until ``last_step`` may be written. False: nobody wants more, end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or last_step < self._next_step + self._ring.num_steps)
            return not self._closed

    def take(self, at_most: int) -> Rows | None:
        """Training thread: the next steps, waiting for the first; None when the thread ended before it.

        Raises:
            SparkringError: whatever ended the thread, see ``reason_of``.
        """
        with self._changed:
            # The thread's end, good or bad, wakes this wait. A read that hangs is bounded by launch.stall_timeout_s.
            self._changed.wait_for(lambda: self._complete > self._next_step or self._ended or self._closed)
            if self._complete <= self._next_step:
                if self._error is not None:
                    raise reason_of(self._error, self._place) from self._error
                return None
            steps = min(at_most, self._complete - self._next_step, self._ring.steps_to_end(self._next_step))
        taken = self._ring.take(self._next_step, steps)
        with self._changed:
            self._next_step += steps
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Ends the thread, wherever it is.

        Raises:
            StalledError: a read did not come back in time.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            raise StalledError(self._place, f"a read has not come back within {CLOSE_TIMEOUT_S:g} s",
                               "check the storage")
        atexit.unregister(self.close)

    def _run(self) -> None:
        with ExitStack() as stack:
            stack.push(self._end)
            self._fill(self)

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Hands every error of the thread to the other one, whatever it is: nobody would see it here."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()
        return True
