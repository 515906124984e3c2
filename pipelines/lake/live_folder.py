"""What the driver keeps of an attempt's live traffic: what its ranks have said through the hub.

Runs on: driver; a rank that was started by hand, which has no hub.
Takes:   the attempt's folder.
Gives:   the path of each thing in it. Unlike what is published (``store.py``), these files grow, appear and vanish.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.lake.store import storage_errors

_RECORD = re.compile(r"rank-(\d{5,})\.jsonl")


@dataclass(frozen=True)
class LiveFolder:
    """Names below an attempt's folder."""

    path: Path

    def make(self) -> None:
        """Raises StorageError where it is there already, or cannot be made."""
        with storage_errors(self.path):
            self.path.mkdir(parents=True)

    def record(self, rank: int) -> Path:
        """The rank's append-only metric file (``rank_records.py`` says what a line holds)."""
        return self.path / f"rank-{rank:05d}.jsonl"

    def records(self) -> dict[int, Path]:
        """The metric files that there are, by rank."""
        if not self.path.is_dir():
            return {}
        matches = ((_RECORD.fullmatch(path.name), path) for path in self.path.iterdir())
        return dict(sorted((int(match[1]), path) for match, path in matches if match))

    def log(self, rank: int) -> Path:
        """The rank's standard output and error, or the end of it; there once it has ended."""
        return self.path / f"rank-{rank:05d}.log"
