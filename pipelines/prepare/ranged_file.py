"""A file at a URL, read in ranges as a local one is.

Runs on: driver, executors.
Takes:   its URL, its size, the options of its file system, and how much to read ahead.
Gives:   ``ranged_file``: open, at its beginning.

Each range is a request of its own, repeated where it fails in passing (``lake/file_systems.py``). More comes than was asked for:
a request costs as much time as the transfer of some 100 kB to 1 MB.
"""

from __future__ import annotations

import io
from typing import BinaryIO

from pipelines.lake.file_systems import asked

BUFFER_BYTES = 64 * 1024  # of small reads, before they come to ``_Ranges``


def ranged_file(url: str, size_bytes: int, options: str, ahead_bytes: int) -> BinaryIO:
    """A file that is no longer than ``ahead_bytes`` comes whole, with one request. Memory: what is read at once, and that.

    Raises:
        OSError, ImportError, or others of ``lake.file_systems.failures``, also when it is read.
    """
    if size_bytes <= ahead_bytes:
        return io.BytesIO(_fetched(url, options, 0, size_bytes))
    return io.BufferedReader(_Ranges(url, size_bytes, options, ahead_bytes), BUFFER_BYTES)


def _fetched(url: str, options: str, start: int, end: int) -> bytes:
    if start >= end:  # which is no range
        return b""
    content: bytes = asked(url, options, lambda system, path: system.cat_file(path, start=start, end=end))
    if len(content) != end - start:  # it has become shorter; or its server sends files whole alone
        raise OSError(f"{len(content):,} bytes came of {end - start:,} asked for")
    return content


class _Ranges(io.RawIOBase):
    """Holds the last range."""

    def __init__(self, url: str, size_bytes: int, options: str, ahead_bytes: int) -> None:
        super().__init__()
        self._url, self._size, self._options, self._ahead = url, size_bytes, options, ahead_bytes
        self._at = self._held_from = 0
        self._held = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """What is held of it, as far as that goes; where that is nothing, what comes with a request."""
        if not self._held_from <= self._at < self._held_from + len(self._held):
            end = min(self._at + len(buffer) + self._ahead, self._size)
            self._held, self._held_from = _fetched(self._url, self._options, self._at, end), self._at
        first = self._at - self._held_from
        count = min(len(buffer), len(self._held) - first)
        buffer[:count] = memoryview(self._held)[first:first + count]
        self._at += count
        return count
