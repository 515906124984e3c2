"""A claim: a file that one process at a time holds, and that the operating system frees when its holder ends, however
that happens. It is the only lock there is: of a run, of a run's tables, of a dataset version that is prepared.

Runs on: driver.
Takes:   the claim's path, and what to say where another process holds it.
Gives:   ``claimed``, a block that holds it; ``is_claimed``, whether anybody does.

The file is gone once nobody holds the claim, unless its holder was killed. On a file system that several machines mount, a
claim reaches as far as that file system's ``flock`` does (NFS: everywhere).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import AlreadyRunningError
from pipelines.lake.store import storage_errors

PATIENCE_S = 1.0  # is_claimed holds a claim for an instant, which must not look like a holder
_POLL_S = 0.02


@contextmanager
def claimed(path: Path, refusal: AlreadyRunningError, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Holds the claim for the block.

    Raises:
        AlreadyRunningError: ``refusal``, where another process held it all through ``patience_s``.
        StorageError: the claim's file cannot be made.
    """
    until = time.monotonic() + patience_s
    while (descriptor := _held(path)) is None:
        if time.monotonic() > until:
            raise refusal
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: see _held
        os.close(descriptor)


def is_claimed(path: Path) -> bool:
    """Whether a process holds the claim now; one that was never held is free."""
    try:
        with open(path, "rb") as file:
            return not _locked(file.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _held(path: Path) -> int | None:
    """A descriptor that holds the claim, or None where another process does."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if _locked(descriptor, fcntl.LOCK_EX) and _is_file(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _is_file(path: Path, descriptor: int) -> bool:
    """False where the claim's holder ended, and removed the file, between our open and our lock."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.ESTALE:  # NFS: its holder ended on another host, and removed the file that we had opened
            return False
        raise
