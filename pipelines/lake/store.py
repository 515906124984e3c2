"""Published things: objects named by keys, each written whole and visible at once, or not there at all.

Runs on: driver, executors and ranks.
Takes:   the lake's root, and keys: plain relative names below it, such as ``tables/runs/gpt-0a1b.parquet``.
Gives:   ``Store``, what the lake asks of the place where it lies; ``FolderStore``, a folder that all machines see.

``Store`` asks for no more than a store of objects has: nothing is appended to, renamed or locked. Several objects that
belong together (a dataset version, a model) are made visible by the one that is written last (manifest, weights).

In a folder, an object is written under a name that starts with ``.tmp-``, synced and renamed: a crash leaves at most that
name, which readers (Spark's and ours) ignore.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple, Protocol

import pyarrow as pa

from pipelines.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"
SMALL_FILE_BYTES = 1024**2
SYNC_BYTES = 64 * 1024**2  # written before the disk is waited for


class ObjectFacts(NamedTuple):
    """What a store knows of an object without reading it."""

    bytes: int
    modified_s: float  # Unix time
    version: str  # another one once the object is replaced


class Store(Protocol):
    """Objects by key. Writing raises StorageError; reading what is not there raises FileNotFoundError."""

    folders_appear_whole: ClassVar[bool]  # several objects can appear at once (``staging.py``): a missing one was removed

    def below(self, prefix: str) -> Store:
        """The objects below a prefix as a store of their own: a dataset version, a model."""
        ...

    def place(self, key: str = "") -> str:
        """The key, or the store itself, as people, Spark and other programs name it: a path, or a URL."""
        ...

    def put(self, key: str, content: bytes | str) -> None:
        """Writes one object, or replaces it."""
        ...

    def create(self, key: str, content: bytes | str) -> bool:
        """Writes one object where there is none. False where there is one already, whoever was first: of all that try at
        the same time, one is told True."""
        ...

    def writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        """A file to write an object to, which it becomes (or replaces) when the block ends well, and else never."""
        ...

    def read(self, key: str) -> bytes:
        """A whole object."""
        ...

    def sha256(self, key: str) -> str:
        """Hex digest of an object's content."""
        ...

    def open(self, key: str) -> pa.NativeFile:
        """An object to read parts of: pyarrow reads it without Python in between."""
        ...

    def local_path(self, key: str) -> Path:
        """A file (or folder) of this machine that holds the object (or those below the key), for libraries that read
        paths: the thing itself here; of a store elsewhere, a copy that is kept. Not to be written to."""
        ...

    def remove(self, key: str) -> None:
        """Of an object that nothing names any more; there may be none."""
        ...

    def facts(self, key: str) -> ObjectFacts | None:
        """Size and time of an object, or None where there is none."""
        ...

    def names(self, prefix: str) -> list[str]:
        """The next part of all keys below ``prefix``, sorted. A listing: not for what is done often."""

    def keys(self, prefix: str) -> list[str]:
        """All objects below ``prefix``, sorted, also those that no reader sees. Lists as much as there is."""
        ...

    def clear_litter(self, key: str) -> None:
        """Removes what killed writers of ``key`` left. Only for one who holds a claim that keeps others from writing it."""
        ...


@dataclass(frozen=True)
class FolderStore:
    """A store in a folder that driver, executors and ranks all see (a local disk, NFS)."""

    root: Path
    folders_appear_whole: ClassVar[bool] = True

    def _path(self, key: str) -> Path:
        return self.root / key

    def below(self, prefix: str) -> Store:
        return FolderStore(self._path(prefix))

    def place(self, key: str = "") -> str:
        return str(self._path(key))

    def put(self, key: str, content: bytes | str) -> None:
        write_file(self._path(key), content)

    def create(self, key: str, content: bytes | str) -> bool:
        target = self._path(key)
        temporary = _temporary_beside(target)
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with synced_file(temporary) as file:
                    file.write(content.encode() if isinstance(content, str) else content)
                os.link(temporary, target)  # whole, or not at all, and never over another: on NFS too
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        return new_file(self._path(key))

    @contextmanager
    def new_folder(self, key: str) -> Iterator[Path]:
        """Its files are the objects below ``key`` once the block ends well. StorageError where another writer was first."""
        target = self._path(key)
        temporary = _temporary_beside(target)
        with storage_errors(target):
            temporary.mkdir(parents=True)
        try:
            yield temporary
            with storage_errors(target):
                _sync_folder(temporary)
                temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def link(self, key: str, folder: Path) -> None:
        """Makes the objects of a folder elsewhere appear below ``key``, to be read only."""
        target = self._path(key)
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(folder.absolute())

    def read(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def sha256(self, key: str) -> str:
        return file_sha256(self._path(key))

    def open(self, key: str) -> pa.NativeFile:
        return pa.OSFile(str(self._path(key)))

    def local_path(self, key: str) -> Path:
        return self._path(key)

    def remove(self, key: str) -> None:
        target = self._path(key)
        with storage_errors(target):
            target.unlink(missing_ok=True)

    def facts(self, key: str) -> ObjectFacts | None:
        try:
            status = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return ObjectFacts(status.st_size, status.st_mtime, f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}")

    def names(self, prefix: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._path(prefix)) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def keys(self, prefix: str) -> list[str]:
        top = self._path(prefix)
        return sorted(str(path.relative_to(self.root)) for path in top.rglob("*") if path.is_file())

    def clear_litter(self, key: str) -> None:
        target = self._path(key)
        found = target.parent.iterdir() if target.parent.is_dir() else ()
        for left in (path for path in found if path.name.startswith(f"{TEMPORARY_PREFIX}{target.name}-")):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


class _SyncedFile(io.FileIO):
    """A new file that is on the disk when it is closed.

    It waits for the disk piece by piece: else the end of a large one would take as long as all of it, without a sign of life.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w")
        self._waiting_bytes = 0

    def write(self, content: Any) -> int:
        written = super().write(content)
        self._waiting_bytes += written
        if self._waiting_bytes >= SYNC_BYTES:
            os.fdatasync(self.fileno())
            self._waiting_bytes = 0
        return written

    def close(self) -> None:
        try:
            if not self.closed:
                os.fsync(self.fileno())
        finally:
            super().close()


def synced_file(path: Path) -> BinaryIO:
    """A new file to write, in a folder that is not published yet (``staging.py``): on the disk once it is closed."""
    return io.BufferedWriter(_SyncedFile(path))


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """Yields a temporary file that replaces ``target`` when the block ends well, and vanishes when it does not.

    Raises:
        StorageError: disk full, read-only, no permission.
    """
    temporary = _temporary_beside(target)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with synced_file(temporary) as file:
                yield file
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size <= SMALL_FILE_BYTES:  # in blocks a small file takes three times as long
            return hashlib.sha256(file.read()).hexdigest()
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(target: Path, content: bytes | str) -> None:
    """Writes one file at once, replacing what is there.

    Raises:
        StorageError: disk full, read-only, no permission.
    """
    with new_file(target) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def storage_errors(target: str | Path) -> Iterator[None]:
    """Turns an operating-system error while writing ``target`` into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(str(target), f"cannot be written: {reason}",
                           "free space, fix permissions, or set storage.root to another folder") from error


def _temporary_beside(target: Path) -> Path:
    """A fresh hidden name in the target's folder (same file system, so that a rename is atomic)."""
    return target.parent / f"{TEMPORARY_PREFIX}{target.name}-{uuid.uuid4().hex[:12]}"


def _sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
