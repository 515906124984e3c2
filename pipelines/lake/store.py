"""Files and folders that appear whole or not at all.

Runs on: driver, executors and ranks.
Takes:   a target path and its content.
Gives:   the target, written under a temporary name beside it, synced, renamed.

A crash leaves at most a name starting with ``.tmp-``, which readers (Spark's and ours) ignore.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"


def temporary_beside(target: Path) -> Path:
    """A fresh hidden name in the target's folder (same file system, so that a rename is atomic)."""
    return target.parent / f"{TEMPORARY_PREFIX}{target.name}-{uuid.uuid4().hex[:12]}"


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turns an operating-system error while writing ``target`` into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(str(target), f"cannot be written: {reason}",
                           "free space, fix permissions, or set storage.root to another folder") from error


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """Yields a temporary file that replaces ``target`` when the block ends well, and vanishes when it does not.

    Raises:
        StorageError: disk full, read-only, no permission.
    """
    temporary = temporary_beside(target)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def write_file(target: Path, content: bytes | str) -> None:
    """Writes one file atomically, replacing what is there.

    Raises:
        StorageError: disk full, read-only, no permission.
    """
    with new_file(target) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes ``target`` when the block ends well, and vanishes when it does not.

    ``target`` must not exist; if another writer published it meanwhile, the rename fails and ours is discarded.

    Raises:
        StorageError: disk full, read-only, no permission.
    """
    temporary = temporary_beside(target)
    with storage_errors(target):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with storage_errors(target):
            sync_folder(temporary)
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
