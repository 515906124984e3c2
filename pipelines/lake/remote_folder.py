"""A folder at any path or URL, to be read.

Runs on: driver and ranks.
Takes:   a path, or a URL of a file system that fsspec knows: ``hf://ORGANISATION/MODEL``, ``s3://...``.
Gives:   ``folder_at``, ``file_at``; ``local_path``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipelines.errors import DataError
from pipelines.lake.file_systems import asked, failures, said, size_in, system_at, version_in
from pipelines.lake.store import FolderStore, ObjectFacts

REMEDY = "check the URL and the network, or copy the folder and give its path"


@dataclass(frozen=True)
class RemoteFolder:
    """What ``Store`` has for reading, by the same names. DataError where the file system cannot be reached."""

    url: str

    def place(self, key: str = "") -> str:
        return f"{self.url}/{key}" if key else self.url

    def read(self, key: str) -> bytes:
        with self._told(key):
            content: bytes = asked(self.place(key), "{}", lambda system, path: system.cat_file(path))
            return content

    def facts(self, key: str) -> ObjectFacts | None:
        with self._told(key):
            try:
                info = asked(self.place(key), "{}", lambda system, path: system.info(path))
            except FileNotFoundError:
                return None
            return ObjectFacts(size_in(info), 0.0, version_in(info))

    @contextmanager
    def open(self, key: str) -> Iterator[Any]:
        """A connection that is lost while the file is read is told as one that was never there."""
        with self._told(key):
            system, path = system_at(self.place(key))
            with system.open(path, "rb") as file:
                yield file

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            raise DataError(self.url, f"needs a package that is not installed ({error})", "install it, or copy the folder and "
                            "give its path") from error
        except FileNotFoundError:
            raise
        except failures() as error:
            raise DataError(self.place(key), f"cannot be read: {said(error)}", REMEDY) from error


def folder_at(url: str) -> FolderStore | RemoteFolder:
    """The folder, which is not looked at yet."""
    path = local_path(url)
    return RemoteFolder(url.rstrip("/")) if "://" in path else FolderStore(Path(path).expanduser().absolute())


def local_path(path: str) -> str:
    """A ``file:`` URL as the path that it names; any other path or URL as it is."""
    match = re.fullmatch(r"file:(?://(?:localhost)?)?(/.*)", path, re.DOTALL)
    if match is None:
        return path
    plain = match[1]
    return plain if os.path.lexists(plain) else unquote(plain)


def file_at(url: str) -> bytes:
    """The content of a file at a path or URL.

    Raises:
        OSError: it cannot be read. DataError: see ``RemoteFolder``.
    """
    folder, _, name = url.rpartition("/")
    return folder_at(folder or ("/" if url.startswith("/") else ".")).read(name)

