"""A claim: a file that one process at a time holds, and that the operating system frees when its holder ends, however
that happens.

Runs on: driver.
Takes:   the claim's path; its folder must be there.
Gives:   ``claimed``, a block that holds it; ``is_claimed``, whether anybody does.

On a file system that several machines mount, a claim reaches as far as that file system's ``flock`` does (NFS: everywhere).
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.lake.store import storage_errors

PATIENCE_S = 1.0  # is_claimed holds a claim for an instant, which must not look like a holder
_POLL_S = 0.02


@contextmanager
def claimed(path: Path, patience_s: float = PATIENCE_S) -> Iterator[bool]:
    """Yields true when the claim is held for the block, false when another process held it all through ``patience_s``.

    Raises:
        StorageError: the claim's file cannot be made.
    """
    with storage_errors(path):
        file = open(path, "a")  # noqa: SIM115 - kept open is what holds the claim
    with file:
        until = time.monotonic() + patience_s
        while not (ours := _locked(file.fileno(), fcntl.LOCK_EX)) and time.monotonic() < until:
            time.sleep(_POLL_S)
        yield ours


def is_claimed(path: Path) -> bool:
    """Whether a process holds the claim now; one that was never held is free."""
    try:
        with open(path, "rb") as file:
            return not _locked(file.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
