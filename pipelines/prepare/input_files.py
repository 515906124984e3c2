"""One file of an input, read where it lies and as it was listed.

Runs on: driver, executors.
Takes:   an ``InputFile``: a path that every machine sees, or a URL that Python reads (``config/input_schemes.py``).
Gives:   ``opened_input``, ``parquet_file``; ``as_listed``, around the reading: ``DataError`` for what has changed or cannot be
         read.

At a URL it is read in ranges (``ranged_file.py``).
"""
# A hundred thousand files: plain strings are shorter than pathlib and several times as fast.
# ruff: noqa: PTH110, PTH116, PTH118, PTH120

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.lake.file_systems import asked, failures, size_in, version_in
from pipelines.prepare.ranged_file import ranged_file

# read ahead at a URL: of a file that is read from its beginning; behind a range of one; in Parquet, which says where things are
AHEAD_BYTES, RANGE_AHEAD_BYTES, PARQUET_AHEAD_BYTES = 8 * 1024**2, 1024**2, 256 * 1024
URL_REMEDY = "check the URL, the network, storage.options, and what this machine's credentials may do there"


class InputFile(NamedTuple):
    """One file of one input, as it was listed."""

    input_index: int
    path: str  # absolute; or a URL
    name: str  # relative to the input's folder: the same wherever the folder lies
    bytes: int
    version: str  # modification time in ns; at a URL, what tells an object from its replacement, "" where nothing does
    options: str = ""  # at a URL: of its file system, as JSON, without secrets

    @property
    def at_url(self) -> bool:
        return not self.path.startswith("/")

    @property
    def place(self) -> str:
        """Of its input in the recipe."""
        return f"prepare.inputs.{self.input_index}.path"


def local_file(input_index: int, path: str, name: str, status: os.stat_result) -> InputFile:
    """A file that is no URL's."""
    return InputFile(input_index, path, name, status.st_size, str(status.st_mtime_ns))


@contextmanager
def as_listed(file: InputFile) -> Iterator[None]:
    """Around the reading of a file or of a part of it: what is read is what was listed.

    Size and version are compared before and after: whoever writes in between is seen by the second look, also where other
    tasks read other parts of the file. At a URL the second look is enough, and the first would be one more request.

    Raises:
        DataError: the file has changed or is gone since it was listed, or it cannot be read.
    """
    try:
        if not file.at_url:
            _refuse_change(file)
        yield
        _refuse_change(file)
    except _errors(file) as error:
        with suppress(*_errors(file)):
            _refuse_change(file)  # what was cut short is not damaged
        raise DataError(file.place, f"{path_text(file.path)} cannot be read ({one_line(error)})",
                        URL_REMEDY if file.at_url else
                        "restore it, fix its permissions, or move it out of the input") from error


def _errors(file: InputFile) -> tuple[type[Exception], ...]:
    """What reading raises; the third is of a name that pyarrow cannot spell, the fourth of a package that is missing."""
    usual = (OSError, pa.ArrowException, UnicodeEncodeError)
    return (*usual, ImportError, *failures()) if file.at_url else usual


def _refuse_change(file: InputFile) -> None:
    try:
        size_bytes, version = _now(file)
    except FileNotFoundError:
        found = "gone"
    else:
        if size_bytes == file.bytes and file.version in (version, ""):
            return
        found = f"{size_bytes:,} bytes of {_version_text(file, version)}"
    raise DataError(file.place, f"{path_text(file.path)}: input changed while it was read, from {file.bytes:,} bytes of "
                    f"{_version_text(file, file.version)} to {found}", "prepare again when nothing writes to the input")


def _now(file: InputFile) -> tuple[int, str]:
    """Size and version."""
    if file.at_url:
        info = asked(file.path, file.options, lambda system, path: system.info(path))
        return size_in(info), version_in(info)
    status = os.stat(file.path)
    return status.st_size, str(status.st_mtime_ns)


def _version_text(file: InputFile, version: str) -> str:
    if file.at_url:
        return f"version {version or 'unknown'}"
    return datetime.fromtimestamp(int(version) / 1e9, UTC).isoformat(timespec="milliseconds")


@contextmanager
def opened_input(file: InputFile, ahead_bytes: int = AHEAD_BYTES) -> Iterator[BinaryIO]:
    """The file, open at its beginning. What it raises is for ``as_listed``.

    Args:
        ahead_bytes: at a URL, how much more than asked for comes with a request; a file that is no longer comes whole.
    """
    if not file.at_url:
        with open(file.path, "rb") as local:
            yield local
        return
    with ranged_file(file.path, file.bytes, file.options, ahead_bytes) as stream:
        yield stream


@contextmanager
def parquet_file(file: InputFile) -> Iterator[pq.ParquetFile]:
    """As ``opened_input``. At a URL a request brings the footer, and one each column of a row group."""
    if not file.at_url:
        with pq.ParquetFile(file.path) as local:
            yield local
        return
    with opened_input(file, PARQUET_AHEAD_BYTES) as stream, pq.ParquetFile(stream) as remote:
        yield remote


def is_beside(file: InputFile, name: str) -> bool:
    """Whether the file's folder has another of that name. What it raises is for ``as_listed``."""
    if not file.at_url:
        return os.path.exists(os.path.join(os.path.dirname(file.path), name))
    other = posixpath.join(posixpath.dirname(file.path), name)
    return asked(other, file.options, lambda system, path: bool(system.exists(path)))


def path_text(path: str) -> str:
    """A path as text, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "replace")


def one_line(error: BaseException) -> str:
    """What the operating system or a library says, short enough for an error."""
    strerror = error.strerror if isinstance(error, OSError) else None
    return " ".join((strerror or str(error)).split())[:300] or type(error).__name__
