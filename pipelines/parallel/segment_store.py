"""A store of torch.distributed whose keys are at the driver's hub.

Runs on: ranks of a split model.
Takes:   a ``MeetingPoint``.
Gives:   ``SegmentStore``, at which a process group's ranks meet: nothing else listens for it, and nothing is unpickled.

Source: torch/csrc/distributed/c10d/Store.hpp (what a store has to do), init.cpp (which methods Python may give).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist

from pipelines.hub.meeting_point import MeetingPoint

DEFAULT_TIMEOUT = timedelta(seconds=300)


class SegmentStore(dist.Store):  # type: ignore[name-defined]
    """Torch's own words on top of the hub's. A prefix in front of it hands no timeout on; gloo gives one with each wait.

    To be kept as long as the group that uses it: torch holds only its own half of the object.
    """

    def __init__(self, point: MeetingPoint, timeout: timedelta = DEFAULT_TIMEOUT) -> None:
        super().__init__()
        self._point, self._wait_timeout = point, timeout

    def set(self, key: str, value: bytes | str) -> None:
        self._point.ask("set", _bytes_of(value), key=key)

    def get(self, key: str) -> bytes:
        self._point.wait([key], self._wait_timeout.total_seconds())
        return self._point.ask("get", key=key)[1]

    def add(self, key: str, value: int) -> int:
        return int(self._point.ask("add", key=key, number=value)[0])

    def compare_set(self, key: str, expected_value: bytes | str, desired_value: bytes | str) -> bytes:
        expected = _bytes_of(expected_value)
        return self._point.ask("compare_set", expected + _bytes_of(desired_value), key=key, expected=len(expected))[1]

    def check(self, keys: list[str]) -> bool:
        return bool(self._point.ask("wait", keys=keys, seconds=0.0)[0])

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        self._point.wait(keys, (timeout or self._wait_timeout).total_seconds())

    def delete_key(self, key: str) -> bool:
        return bool(self._point.ask("delete", key=key)[0])

    def num_keys(self) -> int:
        return int(self._point.ask("num_keys")[0])

    deleteKey, getNumKeys = delete_key, num_keys  # as torch's C++ calls them

    def set_timeout(self, timeout: timedelta) -> None:
        self._wait_timeout = timeout

    @property
    def timeout(self) -> timedelta:
        return self._wait_timeout

    def clone(self) -> Any:
        return self

    def close(self) -> None:
        """When the group that met here is gone."""
        self._point.close()


def _bytes_of(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
