"""What a Spark task and its driver say to each other while the task watches over its rank.

Runs on: Spark tasks.
Takes:   the hub's address, the rank.
Gives:   ``TaskLine``: whether the rank is to stop or the hub has gone; how the rank ended, told with its log.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import Any

from pipelines.hub.hub_address import HubAddress
from pipelines.hub.hub_client import HubClient
from pipelines.hub.messages import SILENCE_S, message_of

TOLD_S = 15.0


class TaskLine:
    """Open between ``__enter__`` and ``__exit__``. What is told may arrive twice, and is the same then."""

    def __init__(self, address: HubAddress, rank: int, silence_s: float = SILENCE_S) -> None:
        self.stopped = threading.Event()  # the driver asks the rank to end
        self.alone = threading.Event()  # nothing was heard of the hub for ``silence_s``
        self._waiting: deque[bytes] = deque()
        self._under_way = False
        self._changed = threading.Condition()
        self._client = HubClient(address, "task", rank, self, self.alone.set, silence_s)

    def __enter__(self) -> TaskLine:
        self._client.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def tell(self, facts: dict[str, Any], log: bytes = b"", timeout_s: float = 0.0) -> bool:
        """Whether the hub has taken it, and all that was told before, within so long."""
        with self._changed:
            self._waiting.append(message_of(facts, log))
            self._client.wake()
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def welcomed(self, welcome: dict[str, Any]) -> None:
        with self._changed:
            self._under_way = False
        self.heard(welcome)

    def heard(self, head: dict[str, Any]) -> None:
        if head.get("stop"):
            self.stopped.set()
        if head.get("taken"):
            with self._changed:
                if self._under_way:
                    self._waiting.popleft()
                self._under_way = False
                self._changed.notify_all()

    def due_s(self) -> float | None:
        return 0.0 if self._waiting and not self._under_way else None

    def outgoing(self) -> bytes | None:
        with self._changed:
            if not self._waiting or self._under_way:
                return None
            self._under_way = True
            return self._waiting[0]
