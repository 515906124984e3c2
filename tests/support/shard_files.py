"""Small datasets whose values say which row they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.manifest import Manifest, Shard, row_group_runs
from pipelines.lake.store import FolderStore, file_sha256
from pipelines.lake.task_facts import TaskFacts, shard_schema
from pipelines.prepare.text.language_rows import language_columns, language_facts

SEQUENCE_LENGTH = 6
END_OF_TEXT = 999_999


def tokens_of(row: int, sequence_length: int = SEQUENCE_LENGTH) -> list[int]:
    length = length_of(row, sequence_length)
    return [row * 10 + i for i in range(length)] + [END_OF_TEXT] * (sequence_length + 1 - length)


def length_of(row: int, sequence_length: int = SEQUENCE_LENGTH) -> int:
    return sequence_length + 1 if row % 5 else 2 + row % sequence_length


def table_of(rows: range, sequence_length: int = SEQUENCE_LENGTH) -> pa.Table:
    schema = shard_schema(language_columns(sequence_length, END_OF_TEXT))
    return pa.table({"tokens": [tokens_of(row, sequence_length) for row in rows],
                     "length": [length_of(row, sequence_length) for row in rows]}, schema=schema)


def write_shard(path: Path, table: pa.Table, row_groups: list[int]) -> Shard:
    with pq.ParquetWriter(path, table.schema) as writer:
        for first, rows in zip(np.cumsum([0, *row_groups]), row_groups, strict=False):
            writer.write_table(table.slice(first, rows), row_group_size=rows)
    return described(path, row_groups)


def described(path: Path, row_groups: list[int]) -> Shard:
    """What a manifest says of a file as it is."""
    return Shard(path.name, row_group_runs(row_groups), path.stat().st_size, file_sha256(path))


def manifest_of(shards: list[Shard], sequence_length: int = SEQUENCE_LENGTH) -> Manifest:
    task = language_facts(sequence_length=sequence_length, vocabulary_size=END_OF_TEXT + 1, end_of_text_id=END_OF_TEXT,
                          tokenizer_sha256="")
    return manifest_for(task, shards)


def manifest_for(task: TaskFacts, shards: list[Shard]) -> Manifest:
    return Manifest(name="rows", version="v1", task=task, input_fingerprint="", recipe_hash="",
                    splits={"train": tuple(shards), "validation": ()}, units={}, counts={}, baselines=())


def publish(folder: Path, *shards: list[int], sequence_length: int = SEQUENCE_LENGTH) -> Manifest:
    """A dataset whose shards have row groups of these many rows; rows are numbered over all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    first, written = 0, []
    for i, row_groups in enumerate(shards):
        rows = range(first, first := first + sum(row_groups))
        written.append(write_shard(folder / f"train-{i:05d}.parquet", table_of(rows, sequence_length), row_groups))
    return manifest_of(written, sequence_length)


def manifest_in(folder: Path) -> Manifest:
    """What ``Manifest.save`` wrote into a folder."""
    return Manifest.load(FolderStore(folder))
