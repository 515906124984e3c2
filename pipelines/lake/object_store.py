"""A store of objects at a URL: S3 and its like, or whatever else fsspec reaches.

Runs on: driver, executors and ranks.
Takes:   the URL of the lake (``storage.root``), and its options.
Gives:   ``ObjectStore``, which ``store.py`` describes.

An object appears whole when its upload is completed. What is read in parts, or by libraries that read paths, is read from a
copy on this machine (``object_cache.py``). Requests that fail in passing are repeated (``file_systems.py``).

Source: conditional writes of S3 (``If-None-Match``), by which exactly one of several creations succeeds.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

import pyarrow as pa

from pipelines.errors import StorageError
from pipelines.lake.file_systems import asked, failures, said, version_in
from pipelines.lake.object_cache import ObjectCache
from pipelines.lake.store import ObjectFacts, Store, file_sha256, storage_errors

REMEDY = "check storage.root, storage.options, the network, and what this machine's credentials may do there"
NO_BUCKET = "bucket does not exist"  # as S3 says it, for which there is no other sign
REMOVED_AT_ONCE = 1000
MARK = "sparkring-created"  # in the metadata of an object that was created
EXCLUSIVE_SCHEMES = {"s3", "s3a"}  # whose file systems here create on a condition

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class ObjectStore:
    """Travels to executors and ranks; each process opens its own connections."""

    url: str  # without a slash at its end
    options: str = "{}"  # of the file system, as JSON: no secrets
    cache: ObjectCache = field(default_factory=ObjectCache)
    folders_appear_whole: ClassVar[bool] = False
    single_writer: bool = False  # somebody says that no other process writes this lake at the same time

    def below(self, prefix: str) -> Store:
        return replace(self, url=self.place(prefix))

    def place(self, key: str = "") -> str:
        return f"{self.url}/{key}" if key else self.url

    def put(self, key: str, content: bytes | str) -> None:
        value = content.encode() if isinstance(content, str) else content
        self._write(key, lambda system, path: system.pipe_file(path, value))

    def create(self, key: str, content: bytes | str) -> bool:
        """A creation of which the answer was lost may have been done, also where it was refused when it was repeated: so who
        won is read back, by a mark of its own in the object's metadata."""
        value, mark = content.encode() if isinstance(content, str) else content, uuid.uuid4().hex
        if self.url.partition("://")[0] not in EXCLUSIVE_SCHEMES:
            return self._create_alone(key, content)

        def is_ours(system: Any, path: str) -> bool:
            try:
                system.pipe_file(path, value, mode="create", Metadata={MARK: mark})
            except FileExistsError:
                system.invalidate_cache(path)
                return bool(system.metadata(path).get(MARK) == mark)
            return True

        return self._write(key, is_ours)

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
        """What is written waits on this machine's disk: an upload that has begun may end although its writer failed."""
        with storage_errors(f"a temporary file for {self.place(key)}"), tempfile.NamedTemporaryFile(prefix="sparkring-") as file:
            yield file  # type: ignore[misc]
            file.flush()
            self.put_file(key, Path(file.name))

    def put_file(self, key: str, path: Path) -> None:
        """A file of this machine becomes an object."""
        self._write(key, lambda system, target: system.put_file(str(path), target))

    def read(self, key: str) -> bytes:
        content: bytes = self._read(key, lambda system, path: system.cat_file(path))
        return content

    def sha256(self, key: str) -> str:
        return self._of_copy(key, file_sha256)

    def open(self, key: str) -> pa.NativeFile:
        return self._of_copy(key, lambda path: pa.OSFile(str(path)))

    def _of_copy(self, key: str, use: Callable[[Path], ResultT]) -> ResultT:
        try:
            return use(self.local_path(key))
        except FileNotFoundError:  # it had to go for another one, or there is no such object
            return use(self.local_path(key))

    def local_path(self, key: str) -> Path:
        facts = self.facts(key)
        if facts is None:
            raise FileNotFoundError(self.place(key))
        return self.cache.copy(f"{self.place(key)} {facts.version}", Path(key).suffix, facts.bytes, lambda target: self._read(
            key, lambda system, path: system.get_file(path, str(target))))

    def remove(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._asked(key, "removed", lambda system, path: system.rm_file(path))

    def remove_all(self, keys: Sequence[str]) -> None:
        """As ``remove``, many at a time."""
        for first in range(0, len(keys), REMOVED_AT_ONCE):
            some = keys[first:first + REMOVED_AT_ONCE]
            self._write(some[0], lambda system, path, some=some: system.rm(  # type: ignore[misc]
                [path.removesuffix(some[0]) + key for key in some]))

    def facts(self, key: str) -> ObjectFacts | None:
        try:
            info = self._read(key, lambda system, path: system.info(path))
        except FileNotFoundError:
            return None
        if info["type"] != "file":
            return None
        version = version_in(info) or str(info["size"])
        modified = next((info[name] for name in ("LastModified", "last_modified", "mtime", "updated") if info.get(name)), None)
        return ObjectFacts(int(info["size"]), modified.timestamp() if isinstance(modified, datetime) else 0.0, version)

    def names(self, prefix: str) -> list[str]:
        try:
            found, path = self._read(prefix, lambda system, path: (system.ls(path, detail=False), path.rstrip("/")))
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = {str(each).rstrip("/").rpartition("/")[2] for each in found if str(each).rstrip("/") != path}
        return sorted(name for name in names if not name.startswith("."))

    def keys(self, prefix: str) -> list[str]:
        try:
            found, path = self._read(prefix, lambda system, path: (system.find(path), path))
        except FileNotFoundError:
            return []
        below = path.removesuffix(prefix).rstrip("/") + "/"
        return sorted(str(each).removeprefix(below) for each in found)

    def clear_litter(self, key: str) -> None:
        """An upload that was cut off left nothing that can be seen."""

    def _write(self, key: str, request: Callable[[Any, str], ResultT]) -> ResultT:
        try:
            return self._asked(key, "written", request)
        except FileNotFoundError as error:  # no such bucket
            raise StorageError(self.place(key), f"cannot be written: {said(error)}", REMEDY) from error

    def _read(self, key: str, request: Callable[[Any, str], ResultT]) -> ResultT:
        """Raises FileNotFoundError where there is no such object; StorageError where there is no such bucket."""
        return self._asked(key, "read", request)

    def _asked(self, key: str, done: str, request: Callable[[Any, str], ResultT]) -> ResultT:
        try:
            return asked(self.place(key), self.options, request)
        except FileNotFoundError as error:
            if NO_BUCKET not in said(error):
                raise
            raise StorageError(self.place(key), f"cannot be {done}: {said(error)}", REMEDY) from error
        except ImportError as error:
            raise StorageError(self.url, f"needs a package that is not installed ({error})",
                               "install it on every machine") from error
        except failures() as error:
            raise StorageError(self.place(key), f"cannot be {done}: {said(error)}", REMEDY) from error
