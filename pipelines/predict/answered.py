"""A folder of predictions: parts that are each written whole, and a marker that is written last.

Runs on: driver and executors.
Takes:   an output folder that driver and executors see, on which one job at a time works.
Gives:   ``OutputFolder``.

    <output>/_begun.json              whose predictions these are, written first
    <output>/part-<16 digits>.parquet rows of some ranges of the input's files; which ones, and how many by reason: in its footer
    <output>/_predictions.json        all is there: the same, with the counts of all parts, written last
    <output>/.claim/                  who is at it (``lake/claims.py``)

Spark reads the folder as a table: names that begin with ``_`` or ``.`` are hidden.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import AlreadyRunningError, DataError
from pipelines.lake.claims import Claim, claimed
from pipelines.lake.store import FolderStore
from pipelines.prepare.threads import in_threads

BEGUN, DONE = "_begun.json", "_predictions.json"
CLAIM = ".claim"  # hidden from Spark, and from ``Store.names``
FOOTER = b"sparkring"


class AnsweredPart(NamedTuple):
    """What a part says of itself."""

    ranges: list[str]  # of the input's files, see ``range_name``
    rows: int
    reasons: dict[str, int]  # rows that could not be predicted


def range_name(file: str, start: int) -> str:
    return f"{start} {file}"


@dataclass(frozen=True)
class OutputFolder:
    """``path`` is absolute."""

    path: str

    @property
    def store(self) -> FolderStore:
        return FolderStore(Path(self.path))

    def claim(self) -> AbstractContextManager[Claim]:
        return claimed(self.store, CLAIM, AlreadyRunningError(self.path, "another process writes predictions there",
                                                              "wait for it, or give another --output"))

    def totals(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """What the marker says, or None where the predictions are not complete.

        Raises:
            DataError: other things are there: predictions of another model, input or settings, or what is none of ours.
        """
        done, begun = self._json(DONE), self._json(BEGUN)
        ours = done["of"] if done is not None else begun
        if ours is None:
            if names := self.store.names(""):
                raise DataError("--output", f"{self.path} holds other files ({', '.join(names[:3])})",
                                "give a new or empty folder")
            return None
        if done is None and not any(name.startswith("part-") for name in self.store.names("")):
            return None  # a job that ended before it answered anything
        if different := [name for name in identity if ours.get(name) != identity[name]]:
            raise DataError("--output", f"{self.path} holds predictions of another {' and '.join(different)}",
                            "give another --output, or remove it")
        return done

    def _json(self, key: str) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self.store.read(key)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise DataError(self.store.place(key), f"is damaged ({error})", "give another --output, or remove it") from error

    def begin(self, identity: dict[str, Any]) -> None:
        self.store.put(BEGUN, json.dumps(identity, indent=2))

    def write(self, table: pa.Table, ranges: Iterable[str], reasons: Iterable[str]) -> None:
        """A part. The same ranges are written to the same name, whoever writes them."""
        part = AnsweredPart(sorted(ranges), len(table), dict(Counter(reasons)))
        name = hashlib.sha256("\n".join(part.ranges).encode()).hexdigest()[:16]
        with self.store.writer(f"part-{name}.parquet") as file:
            pq.write_table(table.replace_schema_metadata({FOOTER: json.dumps(part._asdict())}), file)

    def parts(self) -> list[AnsweredPart]:
        """All that there are.

        Raises:
            DataError: one is damaged, or two hold the same rows.
        """
        names = [name for name in self.store.names("") if name.startswith("part-")]
        parts = list(in_threads(self._part, names))
        twice = [name for name, number in Counter(name for part in parts for name in part.ranges).items() if number > 1]
        if twice:
            raise DataError(self.path, f"holds the rows of {twice[0]!r} twice", "remove it, and predict again")
        return parts

    def _part(self, name: str) -> AnsweredPart:
        try:
            metadata = pq.read_metadata(self.store.local_path(name)).metadata
            return AnsweredPart(**json.loads(metadata[FOOTER]))
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise DataError(self.store.place(name), f"is not a part of predictions ({error})",
                            "remove it, and start again") from error

    def finish(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Writes the marker; what it says."""
        parts = self.parts()
        reasons = sum((Counter(part.reasons) for part in parts), Counter[str]())
        rows = sum(part.rows for part in parts)
        totals = {"of": identity, "rows": rows, "predicted": rows - reasons.total(), "reasons": dict(sorted(reasons.items())),
                  "parts": len(parts)}
        self.store.put(DONE, json.dumps(totals, indent=2))
        return totals
