"""A store of objects at a URL: S3 and its like, or whatever else fsspec reaches.

Runs on: driver, executors and ranks.
Takes:   the URL of the lake (``storage.root``), and its options.
Gives:   ``ObjectStore``, which ``store.py`` describes.

An object appears whole when its upload is completed. What is read in parts, or by libraries that read paths, is read from a
copy on this machine (``object_cache.py``). Requests are repeated by the file system itself for a while; the one answer that may
be lost for good is that of an exclusive creation, which is read back.

Source: conditional writes of S3 (``If-None-Match``), by which exactly one of several creations succeeds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from pipelines.errors import StorageError
from pipelines.lake.file_systems import failures, said, system_at, version_in
from pipelines.lake.object_cache import ObjectCache
from pipelines.lake.store import ObjectFacts, Store, file_sha256

REMEDY = "check storage.root, storage.options, the network, and what this machine's credentials may do there"
REMOVED_AT_ONCE = 1000
EXCLUSIVE_SCHEMES = {"s3", "s3a"}  # whose file systems here create on a condition


@dataclass(frozen=True)
class ObjectStore:
    """Travels to executors and ranks; each process opens its own connections."""

    url: str  # without a slash at its end
    options: str = "{}"  # of the file system, as JSON: no secrets
    cache: ObjectCache = field(default_factory=ObjectCache)
    single_writer: bool = False  # somebody says that no other process writes this lake at the same time

    @property
    def folders_appear_whole(self) -> bool:
        return False

    def below(self, prefix: str) -> Store:
        return replace(self, url=self.place(prefix))

    def place(self, key: str = "") -> str:
        return f"{self.url}/{key}" if key else self.url

    def put(self, key: str, content: bytes | str) -> None:
        with self._written(key) as (system, path):
            system.pipe_file(path, content.encode() if isinstance(content, str) else content)

    def create(self, key: str, content: bytes | str) -> bool:
        with self._written(key) as (system, path):
            if not EXCLUSIVE_SCHEMES.issuperset([system.protocol] if isinstance(system.protocol, str) else system.protocol):
                return self._create_alone(key, content)
            try:
                system.pipe_file(path, content.encode() if isinstance(content, str) else content, mode="create")
            except FileExistsError:
                return False
        return True

    def _create_alone(self, key: str, content: bytes | str) -> bool:
        if not self.single_writer:
            raise StorageError(self.url, "cannot create an object for one of several writers alone, which keeps two processes "
                               "from working on the same", "use a folder or S3; or, where only one process at a time will ever "
                               "write this lake, set storage.single_writer: true")
        if self.facts(key) is not None:
            return False
        self.put(key, content)
        return True

    @contextmanager
    def writer(self, key: str) -> Iterator[BinaryIO]:
        """What is written waits on this machine's disk: an upload that has begun must not end because its writer failed."""
        with tempfile.TemporaryFile(prefix="sparkring-") as file:
            yield file
            file.flush()
            with self._written(key) as (system, path):
                system.put_file(f"/proc/self/fd/{file.fileno()}", path)

    def put_file(self, key: str, path: Path) -> None:
        """A file of this machine becomes an object."""
        with self._written(key) as (system, target):
            system.put_file(str(path), target)

    def read(self, key: str) -> bytes:
        with self._read(key) as (system, path):
            content: bytes = system.cat_file(path)
            return content

    def sha256(self, key: str) -> str:
        return file_sha256(self.local_path(key))

    def open(self, key: str) -> pa.NativeFile:
        return pa.OSFile(str(self.local_path(key)))

    def local_path(self, key: str) -> Path:
        facts = self.facts(key)
        if facts is None:
            raise FileNotFoundError(self.place(key))
        with self._read(key) as (system, path):
            return self.cache.copy(f"{self.place(key)} {facts.version}", Path(key).suffix, facts.bytes,
                                   lambda target: system.get_file(path, str(target)))

    def remove(self, key: str) -> None:
        with self._written(key) as (system, path):
            try:
                system.rm_file(path)
            except FileNotFoundError:
                return

    def remove_all(self, keys: Sequence[str]) -> None:
        """As ``remove``, many at a time."""
        for first in range(0, len(keys), REMOVED_AT_ONCE):
            with self._written(keys[first]) as (system, path):
                start = path.removesuffix(keys[first])
                system.rm([start + key for key in keys[first:first + REMOVED_AT_ONCE]])

    def facts(self, key: str) -> ObjectFacts | None:
        with self._read(key) as (system, path):
            try:
                info = system.info(path)
            except FileNotFoundError:
                return None
        if info["type"] != "file":
            return None
        version = version_in(info) or str(info["size"])
        modified = info.get("LastModified") or info.get("mtime") or info.get("updated")
        return ObjectFacts(int(info["size"]), modified.timestamp() if hasattr(modified, "timestamp") else 0.0, version)

    def names(self, prefix: str) -> list[str]:
        with self._read(prefix) as (system, path):
            try:
                found = system.ls(path, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = {str(each).rstrip("/").rpartition("/")[2] for each in found if str(each).rstrip("/") != path.rstrip("/")}
        return sorted(name for name in names if not name.startswith("."))

    def keys(self, prefix: str) -> list[str]:
        """All objects below a prefix, sorted. A listing, as ``names``."""
        with self._read(prefix) as (system, path):
            try:
                found = system.find(path)
            except FileNotFoundError:
                return []
        below = path.removesuffix(prefix).rstrip("/") + "/"
        return sorted(str(each).removeprefix(below) for each in found)

    def clear_litter(self, key: str) -> None:
        """An upload that was cut off left nothing that can be seen."""

    @contextmanager
    def _written(self, key: str) -> Iterator[tuple[Any, str]]:
        with self._reached(key, "written") as opened:
            try:
                yield opened
            except FileNotFoundError as error:  # no such bucket
                raise StorageError(self.place(key), f"cannot be written: {said(error)}", REMEDY) from error

    @contextmanager
    def _read(self, key: str) -> Iterator[tuple[Any, str]]:
        with self._reached(key, "read") as opened:
            yield opened

    @contextmanager
    def _reached(self, key: str, done: str) -> Iterator[tuple[Any, str]]:
        try:
            yield system_at(self.place(key), self.options)
        except (FileNotFoundError, FileExistsError):
            raise
        except ImportError as error:
            raise StorageError(self.url, f"needs a package that is not installed ({error})",
                               "install it on every machine") from error
        except failures() as error:
            raise StorageError(self.place(key), f"cannot be {done}: {said(error)}", REMEDY) from error

