"""Border 1: the manifest of an immutable dataset folder.

Runs on: driver and ranks.
Takes:   ``manifest.json`` in a dataset folder.
Gives:   ``Manifest``: shards with their rows, row groups and checksums, and the facts of the task that they are made for.

Row groups are written as runs, ``[length, rows of each]``, because all of a shard but the last have the same size: a
dataset of millions of them takes a few numbers per shard, in the file and in every rank. A bare number, as manifests
had before, is a run of one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from pipelines.errors import DataError
from pipelines.lake.first_manifests import FIRST_FORMAT, of_first_format
from pipelines.lake.store import Store
from pipelines.lake.task_facts import TaskFacts

MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"
MANIFEST_FORMAT = 2
ROWS_FORMAT = 1  # a part of every version: rows made in another way are another dataset
SPLITS = ("train", "validation", "test")  # that a dataset may have; the last one only where the recipe wants it


class RowGroupRun(NamedTuple):
    """Neighbouring row groups of one size."""

    length: int
    rows: int  # of each


def row_group_runs(entries: Iterable[int | Sequence[int]]) -> tuple[RowGroupRun, ...]:
    """The longest runs of row groups in file order; each entry is the rows of one, or a run."""
    pairs = ((1, entry) if isinstance(entry, int) else tuple(entry) for entry in entries)
    return tuple(RowGroupRun(sum(length for length, _ in run), rows) for rows, run in groupby(pairs, key=itemgetter(1)))


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a dataset."""

    path: str  # relative to the dataset folder
    row_groups: tuple[RowGroupRun, ...]  # in file order
    bytes: int
    sha256: str

    @property
    def rows(self) -> int:
        return sum(run.length * run.rows for run in self.row_groups)

    @property
    def num_row_groups(self) -> int:
        return sum(run.length for run in self.row_groups)

    @staticmethod
    def of_json(content: dict[str, Any]) -> Shard:
        """Raises KeyError, TypeError or ValueError where the content is not a shard's."""
        return Shard(**{**content, "row_groups": row_group_runs(content["row_groups"])})


@dataclass(frozen=True)
class Baseline:
    """The validation loss of a model that knows next to nothing."""

    name: str  # of the model: "guessing", "token frequencies"
    loss: float
    note: str = ""  # how it was found, where the name does not say it


@dataclass(frozen=True)
class Manifest:
    """What a dataset folder holds."""

    name: str
    version: str
    task: TaskFacts
    input_fingerprint: str  # changes when any input file's name, size or modification does
    recipe_hash: str  # of the recipe's prepare section
    splits: dict[str, tuple[Shard, ...]]  # "train", "validation" and, where the recipe wants one, "test"
    units: dict[str, int]  # that a loss over all of a split counts
    counts: dict[str, int]  # input_records, rejected_<reason>..., and what else the task's prepare counts
    baselines: tuple[Baseline, ...]  # the weakest first
    source: dict[str, Any] = field(default_factory=dict)  # inputs as the recipe gave them
    format_version: int = MANIFEST_FORMAT

    def shards(self, split: str) -> tuple[Shard, ...]:
        """
        Raises:
            DataError: the dataset has no such split.
        """
        if split not in self.splits:
            raise DataError(f"dataset {self.name} {self.version}", f"has no split {split}, only {', '.join(self.splits)}",
                            "ask for one of them, or prepare with a prepare.split that makes it")
        return self.splits[split]

    def rows(self, split: str) -> int:
        """None where there is no such split."""
        return sum(shard.rows for shard in self.splits.get(split, ()))

    def damage(self, dataset: Store) -> tuple[str, str] | None:
        """The first shard that is missing or of another size: its place, and what was found. Contents are checked as the ranks
        read them."""
        for shard in (shard for shards in self.splits.values() for shard in shards):
            facts = dataset.facts(shard.path)
            if facts is None or facts.bytes != shard.bytes:
                found = "is missing" if facts is None else f"has {facts.bytes} bytes, the manifest says {shard.bytes}"
                return dataset.place(shard.path), found
        return None

    def save(self, files: Store) -> None:
        """As the last object of a version, which makes it visible."""
        files.put(MANIFEST_NAME, json.dumps(asdict(self), indent=2))

    @staticmethod
    def load(dataset: Store) -> Manifest:
        """What a dataset version says of itself.

        Raises:
            DataError: the manifest is missing, or not one that this version understands.
        """
        path = dataset.place(MANIFEST_NAME)
        try:
            content = json.loads(dataset.read(MANIFEST_NAME))
            if content["format_version"] == FIRST_FORMAT:
                content = of_first_format(content)
            elif content["format_version"] != MANIFEST_FORMAT:
                raise DataError(path, f"format_version {content['format_version']} is not {MANIFEST_FORMAT}",
                                "prepare the dataset again")
            content["task"] = TaskFacts.of_json(content["task"])
            content["splits"] = {split: tuple(map(Shard.of_json, shards)) for split, shards in content["splits"].items()}
            content["baselines"] = tuple(Baseline(**baseline) for baseline in content["baselines"])
            return Manifest(**content)
        except FileNotFoundError as error:
            raise DataError(path, "is missing", "run the prepare job first") from error
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(path, f"is not a valid manifest ({type(error).__name__}: {error})",
                            "prepare the dataset again") from error
