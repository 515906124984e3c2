"""Something long goes on: told now and then, so that the driver can tell it from a rank that hangs.

Runs on: ranks.
Takes:   the rank's records.
Gives:   ``progress`` records: one as something begins, then one every few seconds at most, while work is really done.

Loading, an evaluation and a save tell what is behind them, in the thread that does it. A compilation is one long call, so a
thread tells for it: as long as the process, or one that it started, uses a processor. A frozen process and a deadlock use none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psutil

from pipelines.lake.rank_records import RecordWriter

PROGRESS_EVERY_S = 5.0
LEAST_WORK = 0.02  # share of the time in which a compilation uses a processor, however busy the machine
Item = TypeVar("Item")


class Progress:
    """One rank's teller."""

    def __init__(self, records: RecordWriter, stall_timeout_s: float) -> None:
        """``stall_timeout_s``: after so long without a record the driver ends the run."""
        self._records = records
        self._every_s = min(PROGRESS_EVERY_S, stall_timeout_s / 4)

    def counted(self, phase: str, items: Iterable[Item], total: int) -> Iterator[Item]:
        """The items; that one is done is known when the next is asked for."""
        self._tell(phase, 0, total)
        told_s = time.monotonic()
        for done, item in enumerate(items):
            if time.monotonic() - told_s >= self._every_s:
                self._tell(phase, done, total)
                told_s = time.monotonic()
            yield item

    @contextmanager
    def compilations(self) -> Iterator[None]:
        """Tells of each of torch's compilations inside, whenever it comes (the first evaluation, a last short micro-batch)."""
        from torch._dynamo.callback import callback_handler  # slow to import, and needed only with layout.compile
        ended = threading.Event()
        telling: list[threading.Thread] = []

        def begin(_: Any) -> None:
            ended.clear()
            telling.append(threading.Thread(target=self._tell_while_working, args=(threading.get_native_id(), ended),
                                            name="compilation", daemon=True))
            telling[-1].start()

        def end(_: Any) -> None:
            ended.set()
            telling.pop().join()

        callback_handler.register_start_callback(begin)
        callback_handler.register_end_callback(end)
        try:
            yield
        finally:
            callback_handler.remove_start_callback(begin)
            callback_handler.remove_end_callback(end)

    def _tell_while_working(self, compiling: int, ended: threading.Event) -> None:
        before_s = worked_s(compiling)
        while not ended.wait(self._every_s):
            now_s = worked_s(compiling)
            if now_s - before_s >= LEAST_WORK * self._every_s:
                self._tell("compiling", None, None)
            before_s = now_s

    def _tell(self, phase: str, done: int | None, total: int | None) -> None:
        self._records.write("progress", phase=phase, done=done, total=total)


def worked_s(thread_id: int) -> float:
    """Processor time of one thread of this process and of all processes that it started, in seconds.

    Not of its other threads: the ring's works in every cycle, also when there is nothing to do.
    """
    process = psutil.Process()
    own = process.cpu_times()
    seconds = own.children_user + own.children_system  # of those that have ended
    seconds += sum(thread.user_time + thread.system_time for thread in process.threads() if thread.id == thread_id)
    for child in process.children(recursive=True):
        try:
            seconds += sum(child.cpu_times()[:4])  # its own, and of its children that have ended
        except psutil.NoSuchProcess:  # ended meanwhile: it counts with its parent's the next time
            continue
    return float(seconds)
