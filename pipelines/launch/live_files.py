"""Records and logs of an attempt's ranks on their way from the hub to the files of the live folder.

Runs on: driver; a thread of its own, so that a slow disk keeps nobody's heartbeat up.
Takes:   batches of lines, numbered as their rank counts them.
Gives:   ``LiveFiles``: each line once in ``rank-NNNNN.jsonl``; a future for each batch, done when it is there.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import defaultdict
from contextlib import suppress

from pipelines.hub.messages import ProtocolError
from pipelines.lake.live_folder import LiveFolder

GATHER_S = 0.05  # from one round of writing to the next: a thousand ranks are written in a few rounds a second
JOIN_S = 10.0


class LiveFiles:
    """Called in the hub's loop only, but for the thread that writes."""

    def __init__(self, live: LiveFolder, loop: asyncio.AbstractEventLoop) -> None:
        self.fault: OSError | None = None  # after it nothing is written any more
        self._live, self._loop = live, loop
        self._lines: dict[int, int] = defaultdict(int)  # taken of each rank, in its file or on the way there
        for rank, path in live.records().items():
            self._lines[rank] = path.read_bytes().count(b"\n")
        self._files: dict[int, int] = {}
        self._waiting: list[tuple[int, bytes, bool, asyncio.Future[None]]] = []
        self._there, self._closing = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="hub-files", daemon=True)
        self._thread.start()

    def lines(self, rank: int) -> int:
        """How many of the rank are there."""
        return self._lines[rank]

    def take(self, rank: int, first: int, count: int, lines: bytes) -> asyncio.Future[None]:
        """Of a batch, what is not there yet.

        Args:
            first: the number of its first line, from 0.
        Raises:
            ProtocolError: lines are missing before it, or it is not of so many lines.
        """
        known = self._lines[rank] - first
        if known < 0 or lines.count(b"\n") != count or not lines.endswith(b"\n"):
            raise ProtocolError("not the lines that were announced")
        if known >= count:
            return self._put(rank, b"", of_log=False)  # done when what came before is
        self._lines[rank] += count - known
        return self._put(rank, lines if not known else lines.split(b"\n", known)[known], of_log=False)

    def take_log(self, rank: int, log: bytes) -> asyncio.Future[None]:
        return self._put(rank, log, of_log=True)

    def close(self) -> None:
        """When all that was taken is written."""
        with self._there:
            self._closing = True
            self._there.notify()
        self._thread.join(JOIN_S)

    def _put(self, rank: int, data: bytes, *, of_log: bool) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        with self._there:
            self._waiting.append((rank, data, of_log, done))
            self._there.notify()
        return done

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._there:
                self._there.wait_for(lambda: self._waiting or self._closing)
                taken, self._waiting, closing = self._waiting, [], self._closing
            try:
                for rank, data, of_log, _ in taken if self.fault is None else ():
                    if of_log:
                        self._live.log(rank).write_bytes(data)
                    elif data:
                        self._append(rank, data)
            except OSError as error:
                self.fault = error
            with suppress(RuntimeError):  # the disk hung for so long that the hub has closed meanwhile
                self._loop.call_soon_threadsafe(_settle, [done for *_, done in taken], self.fault)
            if not closing:
                time.sleep(GATHER_S)
        for file in self._files.values():
            os.close(file)

    def _append(self, rank: int, data: bytes) -> None:
        file = self._files.get(rank)
        if file is None:
            file = self._files[rank] = os.open(self._live.record(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        while data:
            data = data[os.write(file, data) :]


def _settle(futures: list[asyncio.Future[None]], fault: OSError | None) -> None:
    for future in futures:
        if not future.done():
            if fault is None:
                future.set_result(None)
            else:
                future.set_exception(fault)
