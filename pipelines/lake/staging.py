"""Where objects that belong together are made, before the last of them makes them visible.

Runs on: driver; executors, to which it travels.
Takes:   a store, and the key below which the objects shall lie.
Gives:   ``staged``: a ``Staging`` for a block. When the block ends well its objects are the store's; else they are gone.

In a folder that all machines see, they are made beside their place and appear at once, by a rename. A store of objects takes
each where it will stay, and nobody looks at it before the manifest is there, which is written last.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipelines.errors import SparkringError, StorageError
from pipelines.lake.claims import Claim
from pipelines.lake.object_store import ObjectStore
from pipelines.lake.store import FolderStore, Store, storage_errors


class Staging(Protocol):
    """What is being made. Keys are below it; writing raises StorageError."""

    @property
    def files(self) -> Store: ...

    def folder(self, key: str) -> AbstractContextManager[Path]:
        """A new folder of this machine, whose files are objects below ``key`` when the block ends well."""
        ...

    def shared_folder(self, key: str, why: str) -> Path:
        """A folder that every machine sees, of what only the making needs. StorageError where the lake has none.

        Args:
            why: it is needed, as the end of a sentence.
        """
        ...

    def kept_key(self, written: str, wanted: str) -> str:
        """The key that an object will keep: ``wanted``, or, where nothing can be renamed, the one that it has."""
        ...

    def settle(self, written: str, wanted: str) -> None:
        """Gives it that key."""
        ...

    def sweep(self, kept: Collection[str]) -> None:
        """Removes everything else."""
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class FolderStaging:
    """In a folder that all machines see."""

    files: FolderStore

    @contextmanager
    def folder(self, key: str) -> Iterator[Path]:
        yield self.shared_folder(key, "")

    def shared_folder(self, key: str, why: str) -> Path:
        folder = self.files.root / key
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def kept_key(self, written: str, wanted: str) -> str:
        return wanted

    def settle(self, written: str, wanted: str) -> None:
        with storage_errors(self.files.root / wanted):
            (self.files.root / written).rename(self.files.root / wanted)

    def sweep(self, kept: Collection[str]) -> None:
        for path in [path for path in self.files.root.iterdir() if path.name not in kept]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class ObjectStaging:
    """Where the objects will stay."""

    files: ObjectStore

    @contextmanager
    def folder(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="sparkring-") as temporary:
            yield Path(temporary)
            for path in sorted(Path(temporary).iterdir()):
                self.files.put_file(f"{key}/{path.name}", path)

    def shared_folder(self, key: str, why: str) -> Path:
        raise StorageError(self.files.place(), f"is no folder that all machines see, which is needed {why}",
                           "give that input as a path or as a URL that is read without Spark, or a lake in a folder")

    def kept_key(self, written: str, wanted: str) -> str:
        return written

    def settle(self, written: str, wanted: str) -> None:
        """It has its key."""

    def sweep(self, kept: Collection[str]) -> None:
        self.files.remove_all([key for key in self.files.keys("") if key not in kept])


@contextmanager
def staged(store: Store, key: str, claim: Claim) -> Iterator[Staging]:
    """
    Args:
        claim: keeps others from making the same.
    Raises:
        StorageError: it cannot be written; in a folder, another was first.
    """
    if isinstance(store, FolderStore):
        with store.new_folder(key) as folder:
            yield FolderStaging(FolderStore(folder))
        return
    staging = ObjectStaging(_of_objects(store.below(key)))
    staging.sweep(())  # what a killed one left
    ended_well = False
    try:
        yield staging
        ended_well = True
    finally:
        if not ended_well:
            with suppress(SparkringError):  # what ended it is to be told; nobody sees what is left, and the next one removes it
                claim.check()  # of one who lost the claim, all that lies there is somebody else's
                staging.sweep(())


def _of_objects(store: Store) -> ObjectStore:
    if not isinstance(store, ObjectStore):
        raise StorageError(store.place(), "is no store of objects", "give a folder, or a URL")
    return store
