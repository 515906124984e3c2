"""A rank's records on their way to the driver: batched, kept until the hub has them, each of them there once.

Runs on: ranks.
Takes:   lines, as ``RecordWriter`` makes them.
Gives:   ``RecordStream``, which never waits for the network but in ``flush`` and ``close``, and there not for ever.

Exactly once: lines are counted, and the hub says how many of this rank it has, in every answer and in the welcome of every
connection. What it has is forgotten here, what it has not is sent again, and it leaves out what it has already.

Worked example: the hub has 5 lines. Lines 5, 6 and 7 are sent as ``{"records": 5, "count": 3}``, and the connection breaks. The
welcome of the next one says 8 (they had arrived: all three are forgotten) or 5 (they are sent again).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from pipelines.hub.hub_address import HubAddress
from pipelines.hub.hub_client import HubClient
from pipelines.hub.messages import BODY_BYTES, SILENCE_S, message_of, whole_number

log = logging.getLogger(__name__)

PACE_S = 0.7  # from one batch to the next: a record is with the driver within a second
BATCH_BYTES = 1024 * 1024
LINE_BYTES = BODY_BYTES  # of a record; a longer one is dropped
WAITING_BYTES = 2 * BODY_BYTES  # of lines that the hub has not; of more, the oldest that were never sent are dropped
FLUSH_S = 20.0
MOST_LINES = 2**62


class RecordStream:
    """Of one rank. What has to be dropped is counted, told to the hub and, at the end, in this process' own output."""

    def __init__(self, address: HubAddress, rank: int, on_silence: Callable[[], None], *, silence_s: float = SILENCE_S,
                 waiting_bytes: int = WAITING_BYTES) -> None:
        self.dropped = 0
        self._waiting_bytes, self._bytes = waiting_bytes, 0
        self._lines: deque[bytes] = deque()  # what the hub is not known to have
        self._first: int | None = None  # the number of the first of them; None before the hub has said so
        self._sent = 0  # how many of them were sent at least once: those keep their numbers
        self._under_way = False
        self._urgent, self._next_s, self._closed = False, 0.0, False
        self._changed = threading.Condition()
        self._client = HubClient(address, "rank", rank, self, on_silence, silence_s)
        self._client.start()

    def append(self, line: str) -> None:
        """A line without its end."""
        data = line.encode() + b"\n"
        with self._changed:
            asleep = not self._lines
            if len(data) > LINE_BYTES:
                self.dropped += 1
                return
            self._lines.append(data)
            self._bytes += len(data)
            while self._bytes > self._waiting_bytes and len(self._lines) > self._sent + 1:
                self._bytes -= len(self._lines[self._sent])
                del self._lines[self._sent]
                self.dropped += 1
        if asleep:
            self._client.wake()

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Whether the hub has everything within so long."""
        with self._changed:
            self._urgent = True
            self._client.wake()
            done = self._changed.wait_for(lambda: not self._lines, timeout_s)
            self._urgent = False
        return done

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """With a flush; once."""
        if self._closed:
            return
        self._closed, done = True, self.flush(timeout_s)
        self._client.close()
        if not done:
            log.warning("%d records did not reach the driver within %g s", len(self._lines), timeout_s)
        if self.dropped:
            log.warning("%d records were dropped: too long, or more than could be sent", self.dropped)

    def welcomed(self, welcome: dict[str, Any]) -> None:
        with self._changed:
            self._under_way = False
            self._has(whole_number(welcome, "lines", MOST_LINES))

    def heard(self, head: dict[str, Any]) -> None:
        if "lines" in head:
            with self._changed:
                self._under_way = False
                self._has(whole_number(head, "lines", MOST_LINES))

    def due_s(self) -> float | None:
        with self._changed:
            if not self._lines or self._under_way:
                return None
            return 0.0 if self._urgent else max(0.0, self._next_s - time.monotonic())

    def outgoing(self) -> bytes | None:
        if self.due_s() != 0.0:
            return None
        with self._changed:
            count, length = 0, 0
            for line in self._lines:
                if count and length + len(line) > BATCH_BYTES:
                    break
                count, length = count + 1, length + len(line)
            self._under_way, self._sent = True, max(self._sent, count)
            self._next_s = time.monotonic() + PACE_S
            return message_of({"records": self._first, "count": count, "dropped": self.dropped},
                          b"".join(islice(self._lines, count)))

    def _has(self, lines: int) -> None:
        """The hub has so many lines of this rank."""
        if self._first is None:  # whoever wrote for this rank before has left them
            self._first = lines
        for _ in range(min(lines - self._first, len(self._lines))):
            self._bytes -= len(self._lines.popleft())
            self._sent = max(0, self._sent - 1)
        self._first = lines
        self._changed.notify_all()
