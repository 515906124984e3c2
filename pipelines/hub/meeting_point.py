"""A few keys with values that the ranks of one replica share, to find each other.

Runs on: ranks of a split model.
Takes:   the hub's address, the rank.
Gives:   ``MeetingPoint``: one request at a time, over a connection that is made when one is needed.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from pipelines.hub.hub_address import HubAddress
from pipelines.hub.hub_connection import HubConnection
from pipelines.hub.messages import ProtocolError, message_of

WAIT_S = 5.0  # of the hub, for a key to appear; then it is asked again
ANSWER_S = 15.0
FRESH_S = 20.0  # a connection that was not used for longer may have been closed by the hub
KEY_CHARACTERS = 1024
VALUE_BYTES = 64 * 1024


class MeetingPoint:
    """The keys are the replica's own: the hub knows which replica a rank is of."""

    def __init__(self, address: HubAddress, rank: int) -> None:
        self._address, self._rank = address, rank
        self._connection: HubConnection | None = None
        self._used_s = 0.0
        self._lock = threading.Lock()  # torch asks from threads of its own

    def ask(self, what: str, body: bytes = b"", **about: Any) -> tuple[Any, bytes]:
        """The hub's answer, and its value.

        Raises:
            RuntimeError: the hub refuses, or is not reached.
        """
        with self._lock:
            try:
                connection = self._open()
                connection.send(message_of({"ask": what, **about}, body))
                head, value = connection.receive()
                while "answer" not in head and "refused" not in head:  # a heartbeat
                    head, value = connection.receive()
            except (OSError, ProtocolError) as error:
                self._close()
                raise RuntimeError(f"Connection to the driver's hub: {error}") from error
            self._used_s = time.monotonic()
        if "refused" in head:
            raise RuntimeError(f"the driver's hub refuses: {head['refused']}")
        return head["answer"], value

    def wait(self, keys: list[str], timeout_s: float) -> None:
        """Until all are there. Raises RuntimeError where they are not in time."""
        until_s = time.monotonic() + timeout_s
        while True:
            left_s = until_s - time.monotonic()
            if self.ask("wait", keys=keys, seconds=max(0.0, min(WAIT_S, left_s)))[0]:
                return
            if left_s <= 0:
                raise RuntimeError(f"Timed out after {timeout_s:g} s, waiting for {', '.join(keys)}")

    def close(self) -> None:
        with self._lock:
            self._close()

    def _open(self) -> HubConnection:
        if self._connection is not None and time.monotonic() - self._used_s > FRESH_S:
            self._close()
        if self._connection is None:
            self._connection = HubConnection(self._address, "segment", self._rank, ANSWER_S)
            self._connection.set_timeout(ANSWER_S)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
