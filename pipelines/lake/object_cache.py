"""Copies of objects on this machine's disk, bounded in bytes: what is read from a lake that lies elsewhere.

Runs on: driver, executors and ranks; the processes of one machine share it.
Takes:   an object's name with its version, its size, and what fetches it.
Gives:   ``ObjectCache.copy``: a whole file, made by one process while the others wait for it.

A copy is never changed. The ones that were not asked for longest go first; a process that has one open keeps it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.config.platform import CACHE_BYTES
from pipelines.errors import StorageError
from pipelines.lake.store import TEMPORARY_PREFIX

FREE_SHARE = 0.05  # of the disk, which is left to others
FETCHED_S = 1800.0  # in which an object has come
ABANDONED_S = 2 * FETCHED_S  # nobody fetches for so long
POLL_S = 0.05


@dataclass(frozen=True)
class ObjectCache:
    """None of what it holds is lost with it."""

    max_bytes: int = CACHE_BYTES
    parent: str | None = None  # folder that it lies in; None: the machine's temporary folder

    @property
    def folder(self) -> Path:
        """Raises StorageError where it is another's, or cannot be made."""
        return private_folder(self.place / f"sparkring-cache-{os.getuid()}")

    @property
    def place(self) -> Path:
        """Of what this machine keeps of lakes elsewhere. Raises StorageError where no temporary folder can be used."""
        try:
            return Path(self.parent or tempfile.gettempdir())
        except FileNotFoundError as error:
            raise _unusable(Path("a temporary folder"), str(error)) from error

    def copy(self, name: str, suffix: str, size: int, fetch: Callable[[Path], object]) -> Path:
        """The copy of an object.

        Args:
            name: another one for each version of it. suffix: of the file's name. size: in bytes.
            fetch: writes it to the path that it is given.
        Raises:
            StorageError: there is no room, or what came is not of that size.
        """
        folder = self.folder
        target = folder / f"{hashlib.sha256(name.encode()).hexdigest()}{suffix}"
        if _touched(target, size):
            return target
        with _alone(folder, target.name):
            if not _touched(target, size):
                self._make_room(folder, size)
                temporary = folder / f"{TEMPORARY_PREFIX}{target.name}"  # one that was killed has left it, or nobody
                try:
                    fetch(temporary)
                    if (came := temporary.stat().st_size) != size:
                        raise StorageError(name.partition(" ")[0], f"came with {came:,} bytes, not {size:,}", "try again")
                    temporary.replace(target)
                finally:
                    temporary.unlink(missing_ok=True)
        return target

    def _make_room(self, folder: Path, size: int) -> None:
        """The oldest go until the new one fits into the bound, and the disk keeps its share."""
        for path in folder.iterdir():
            status = _status(path)
            if path.name.startswith(TEMPORARY_PREFIX) and status is not None and time.time() - status.st_mtime > ABANDONED_S:
                path.unlink(missing_ok=True)
        found = sorted((status.st_mtime_ns, status.st_size, path) for path in folder.iterdir()
                       if not path.name.startswith(".") and (status := _status(path)) is not None)
        held = sum(bytes_ for _, bytes_, _ in found)
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize - int(disk.f_blocks * disk.f_frsize * FREE_SHARE)
        if size > self.max_bytes or free + held < size:
            raise StorageError(str(folder), f"has no room for a copy of {size:,} bytes (free: {max(0, free):,}; "
                               f"storage.cache_bytes: {self.max_bytes:,})",
                               "free space, raise storage.cache_bytes, or set storage.cache_folder to another disk")
        for _, bytes_, path in found:
            if held + size <= self.max_bytes and free >= size:
                return
            path.unlink(missing_ok=True)
            held, free = held - bytes_, free + bytes_


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """One process of this machine at a time, while it fetches what many need; those that wait do so no longer than it may take.

    Raises:
        StorageError: they have waited too long, or the disk does not let them.
    """
    path, until = folder / f".{name}.lock", time.monotonic() + FETCHED_S
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error
    try:
        while not _locked(descriptor, folder):
            if time.monotonic() > until:
                raise _unusable(folder, f"another process fetches an object, and has not got it within {FETCHED_S:g} s")
            time.sleep(POLL_S)
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error
    return True


def private_folder(folder: Path) -> Path:
    """Made where it is not there, and ours alone: what another user of the machine could write would be trained on.

    Raises:
        StorageError: it is another's, or cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise _unusable(folder, "is not a folder that only this user can write to")
    return folder


def _touched(path: Path, size: int) -> bool:
    """Whether it is there, which counts as asked for."""
    status = _status(path)
    if status is None or status.st_size != size:
        return False
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _unusable(folder: Path, reason: str) -> StorageError:
    return StorageError(str(folder), f"cannot hold what this machine keeps of a lake elsewhere: {reason}",
                        "remove it; or set storage.cache_folder, or TMPDIR, to a folder of your own")
