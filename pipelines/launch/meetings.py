"""The keys at which the ranks of each replica of a split model meet.

Runs on: driver, in the hub's loop.
Takes:   requests of ranks (``hub/meeting_point.py``).
Gives:   ``Meetings``: answers; a replica's keys are seen by its own ranks alone, and are bounded in size and number.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pipelines.hub.meeting_point import KEY_CHARACTERS, VALUE_BYTES, WAIT_S
from pipelines.hub.messages import ProtocolError, finite_number, short_text, whole_number


class _Keys:
    """Of one replica."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.changed = asyncio.Event()

    def put(self, key: str, value: bytes) -> None:
        self.values[key] = value
        self.changed.set()  # wakes who waits now; who waits from now on waits for the next change
        self.changed = asyncio.Event()


class Meetings:
    """Of all replicas."""

    def __init__(self, num_segments: int) -> None:
        self._num_segments = num_segments
        self._most_keys = 256 + 64 * num_segments + 2 * num_segments**2  # a pair of segments may have keys of its own
        self._replicas: dict[int, _Keys] = {}

    async def answer(self, rank: int, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """What to say to a request.

        Raises:
            ProtocolError: it is none.
        """
        keys = self._replicas.setdefault(rank // self._num_segments, _Keys())
        asked = short_text(head, "ask", 16)
        if asked == "num_keys":
            return {"answer": len(keys.values)}, b""
        if asked == "wait":
            return {"answer": await _there(keys, *_awaited(head))}, b""
        key = short_text(head, "key", KEY_CHARACTERS)
        if asked == "get":
            return {"answer": key in keys.values}, keys.values.get(key, b"")
        if asked == "delete":
            return {"answer": keys.values.pop(key, None) is not None}, b""
        if asked not in ("set", "add", "compare_set"):
            raise ProtocolError(f"nobody can ask {asked!r}")
        value = _changed(asked, head, body, keys.values.get(key))
        if value is not None:
            if len(value) > VALUE_BYTES or (key not in keys.values and len(keys.values) >= self._most_keys):
                return {"refused": f"more than {VALUE_BYTES:,} bytes, or than {self._most_keys:,} keys"}, b""
            keys.put(key, value)
        now = keys.values.get(key, b"")
        return ({"answer": int(now)}, b"") if asked == "add" else ({"answer": True}, now if asked == "compare_set" else b"")


def _awaited(head: dict[str, Any]) -> tuple[list[str], float]:
    keys = head.get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ProtocolError("keys are no list of texts")
    return keys, finite_number(head, "seconds", 0.0, WAIT_S)


async def _there(keys: _Keys, wanted: list[str], seconds: float) -> bool:
    """Whether all are there, at the latest after so many seconds."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + seconds
    while not all(key in keys.values for key in wanted):
        left_s = until_s - loop.time()
        if left_s <= 0:
            return False
        try:
            await asyncio.wait_for(keys.changed.wait(), left_s)
        except TimeoutError:
            return False
    return True


def _changed(asked: str, head: dict[str, Any], body: bytes, old: bytes | None) -> bytes | None:
    """The new value; None where it stays as it is."""
    if asked == "set":
        return body
    if asked == "add":
        try:
            return str(int(old or b"0") + whole_number(head, "number", 2**62, -(2**62))).encode()
        except ValueError as error:
            raise ProtocolError(f"cannot add: {error}") from error
    expected = whole_number(head, "expected", len(body))
    there = old == body[:expected] if old is not None else expected == 0
    return body[expected:] if there else None
