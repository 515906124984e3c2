"""What the driver keeps of an attempt's live traffic: what its ranks have said through the hub.

Runs on: driver; a rank that was started by hand, which has no hub.
Takes:   the attempt's folder.
Gives:   the path of each thing in it. Unlike what is published (``store.py``), these files grow, appear and vanish.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import StorageError
from pipelines.lake.object_cache import private_folder
from pipelines.lake.store import FolderStore, Store, storage_errors, write_file

_RECORD = re.compile(r"rank-(\d{5,})\.jsonl")


@dataclass(frozen=True)
class LiveFolder:
    """Names below an attempt's folder."""

    path: Path
    # of a lake that lies elsewhere: where the records are kept once the attempt has ended, and the folder that is ours alone
    kept: Store | None = None
    own: Path | None = None

    def make(self) -> None:
        """Raises StorageError where it is there already, or cannot be made."""
        if self.own is not None:
            private_folder(self.own)
        with storage_errors(self.path):
            self.path.mkdir(parents=True)

    def keep(self) -> None:
        """Puts what the ranks recorded into a lake that lies elsewhere, for those who look at the run from other machines."""
        if self.kept is not None and self.path.is_dir():
            for path in sorted(self.path.iterdir()):
                if _RECORD.fullmatch(path.name):
                    with path.open("rb") as records, self.kept.writer(path.name) as file:
                        shutil.copyfileobj(records, file)

    def _fetch(self) -> None:
        """What another machine's driver has kept."""
        if self.kept is None or self.own is None or self.path.exists():
            return
        names = [name for name in self.kept.names("") if _RECORD.fullmatch(name)]
        if names:
            private_folder(self.own)
            try:
                with FolderStore(self.path.parent).new_folder(self.path.name) as folder:  # all of them, or none
                    for name in names:
                        write_file(folder / name, self.kept.read(name))
            except StorageError:
                if not self.path.exists():  # another process was not first
                    raise

    def record(self, rank: int) -> Path:
        """The rank's append-only metric file (``rank_records.py`` says what a line holds)."""
        return self.path / f"rank-{rank:05d}.jsonl"

    def records(self) -> dict[int, Path]:
        """The metric files that there are, by rank."""
        self._fetch()
        if not self.path.is_dir():
            return {}
        matches = ((_RECORD.fullmatch(path.name), path) for path in self.path.iterdir())
        return dict(sorted((int(match[1]), path) for match, path in matches if match))

    def log(self, rank: int) -> Path:
        """The rank's standard output and error, or the end of it; there once it has ended."""
        return self.path / f"rank-{rank:05d}.log"
