"""One Spark partition of images becomes its shards: drop duplicates, split, write.

Runs on: executors.
Takes:   rows of ``images`` sorted by key, in Arrow batches.
Gives:   Parquet files in a folder of this attempt's own, and one JSON outcome that lists them.

As for text (``prepare/text/partition.py``): the same partition always gives the same bytes, a task that Spark repeats writes
into another folder, and the driver keeps those whose outcome it received.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.manifest import SPLITS
from pipelines.lake.staging import Staging
from pipelines.lake.store import file_sha256, synced_file
from pipelines.lake.task_facts import IMAGE_FILE, shard_schema
from pipelines.prepare.hash_split import HashSplit
from pipelines.prepare.images.decoding import ImageShape
from pipelines.prepare.images.image_records import FAULT, ImageRecord
from pipelines.prepare.images.image_rows import image_columns
from pipelines.prepare.rejected_rows import COMPRESSION, REJECTED_NAME, RejectedWriter
from pipelines.prepare.task_outcome import task_outcome


class RowPlace(NamedTuple):
    """Of an image in the order of all: by key, then where it was read."""

    key: bytes
    source: bytes
    position: int


@dataclass(frozen=True)
class WriteSettings:
    """What a task needs to know."""

    staging: Staging
    dataset_name: str
    dataset_version: str
    shape: ImageShape
    num_classes: int
    encoding: str  # of the column of images
    rows_per_row_group: int
    deduplicate: bool
    splits: tuple[str, ...]
    fractions: tuple[float, float]  # of validation and test, of images whose split the input does not say, or says is train
    lasts: tuple[RowPlace, RowPlace] | None  # the last image of validation, and of test; None: by fractions


def write_partition(batches: Iterator[pa.RecordBatch], settings: WriteSettings) -> Iterator[pa.RecordBatch]:
    """The function of ``DataFrame.mapInArrow``: one row, the outcome as JSON (see ``text/partition.py``)."""
    return task_outcome(settings.staging, lambda folder: _write(batches, settings, folder))


def _write(batches: Iterator[pa.RecordBatch], settings: WriteSettings, folder: Path) -> dict[str, Any]:
    writer = PartitionWriter(settings, folder)
    for batch in batches:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            record = ImageRecord(*row)
            if record.reason == FAULT:
                place, problem, remedy = json.loads(record.detail or "")
                return {"fault": {"kind": "data", "place": place, "problem": problem, "remedy": remedy}}
            writer.add(record)
    return writer.finish()


class PartitionWriter:
    """Routes each image of a partition to its split or to the rejected rows."""

    def __init__(self, settings: WriteSettings, folder: Path) -> None:
        self._settings = settings
        self._shards = {split: ImageShardWriter(settings, folder / f"{split}.parquet") for split in settings.splits}
        self._rejected = RejectedWriter(settings.dataset_name, settings.dataset_version, folder / REJECTED_NAME)
        self._hash_split = HashSplit(*settings.fractions)
        self._counts: Counter[str] = Counter()
        self._kept: ImageRecord | None = None  # the newest that was no duplicate
        self._examples: dict[str, tuple[str, int, str | None]] = {}  # the first refused record by reason

    def add(self, record: ImageRecord) -> None:
        self._counts["input_records"] += 1
        record = self._first_of_its_pixels(record)
        split = self._split_of(record)
        if record.reason is None and split not in self._shards:
            known = ", ".join(SPLITS)
            record = record._replace(image=None, reason="unknown_split", detail=f"{record.split!r} is none of {known}")
        if record.image is None or record.label is None:
            self._counts[f"rejected_{record.reason}"] += 1
            self._examples.setdefault(str(record.reason), (record.source, record.position, record.detail))
            self._rejected.add(record.source, record.position, record.reason, record.detail, record.bytes)
            return
        self._counts["images"] += 1
        self._shards[split].add(record)

    def _first_of_its_pixels(self, record: ImageRecord) -> ImageRecord:
        """The record; refused where an earlier one has the same pixels."""
        if record.reason is not None or not self._settings.deduplicate:
            return record
        kept = self._kept
        if kept is None or kept.key != record.key:
            self._kept = record._replace(image=None)
            return record
        same = f"same pixels as {kept.source} at {kept.position}"
        if kept.label == record.label:
            return record._replace(image=None, reason="duplicate", detail=same)
        return record._replace(image=None, reason="contradiction", detail=f"{same}, which has another label")

    def _split_of(self, record: ImageRecord) -> str:
        if record.split not in (None, "train"):
            return str(record.split)
        if self._settings.lasts is None:
            return self._hash_split.of(record.key)
        place = RowPlace(record.key, record.source.encode(), record.position)
        validation, test = self._settings.lasts
        return "validation" if place <= validation else "test" if place <= test else "train"

    def finish(self) -> dict[str, Any]:
        """Closes the files; what they hold."""
        return {"has_rejected": self._rejected.close(), "counts": dict(self._counts), "examples": self._examples,
                "shards": {split: shard.close() for split, shard in self._shards.items()}}


class ImageShardWriter:
    """Writes one shard with exactly ``rows_per_row_group`` rows in each row group but the last."""

    def __init__(self, settings: WriteSettings, path: Path) -> None:
        self._path, self._rows, self._shape = path, settings.rows_per_row_group, settings.shape
        self._schema = shard_schema(image_columns(*settings.shape, settings.num_classes, settings.encoding))
        self._file: Any = None
        self._writer: pq.ParquetWriter | None = None
        self._images: list[bytes] = []
        self._labels: list[int] = []
        self._row_groups: list[int] = []
        self._class_counts: Counter[int] = Counter()
        self._sums_C2 = np.zeros((settings.shape.channels, 2), dtype=np.int64)  # of values, and of their squares
        self._as_files = settings.encoding == IMAGE_FILE

    def add(self, record: ImageRecord) -> None:
        """An image that is not refused."""
        self._images.append(record.image or b"")
        self._labels.append(-1 if record.label is None else record.label)
        if record.sums is not None:
            self._sums_C2 += np.reshape(record.sums, (2, -1)).T
        if len(self._labels) == self._rows:
            self._write()

    def close(self) -> dict[str, Any] | None:
        """Writes what is left. The shard's facts, or None where it would hold no row."""
        if self._labels:
            self._write()
        if self._writer is None:
            return None
        self._writer.close()
        self._file.close()
        return {"row_groups": self._row_groups, "bytes": self._path.stat().st_size, "sha256": file_sha256(self._path),
                "class_counts": self._class_counts, "sums": self._sums_C2.tolist()}

    def _write(self) -> None:
        if self._writer is None:
            self._file = synced_file(self._path)  # closed by close()
            self._writer = pq.ParquetWriter(self._file, self._schema, compression=COMPRESSION, use_dictionary=False,
                                            write_statistics=False)
        rows = len(self._labels)
        images = pa.array(self._images, pa.binary()) if self._as_files else self._pixels()
        self._writer.write_table(pa.Table.from_arrays([images, pa.array(self._labels, pa.int32())], schema=self._schema), rows)
        self._row_groups.append(rows)
        self._class_counts.update(self._labels)
        self._images, self._labels = [], []

    def _pixels(self) -> pa.FixedSizeBinaryArray:
        """Rows of values; they are added up."""
        rows, content = len(self._images), b"".join(self._images)
        flat = np.frombuffer(content, np.uint8)
        for channel, values_RP in enumerate(flat.reshape(rows, self._shape.channels, -1).transpose(1, 0, 2)):
            counts_V = np.bincount(values_RP.ravel(), minlength=256)
            self._sums_C2[channel] += [counts_V @ np.arange(256), counts_V @ np.arange(256) ** 2]
        return pa.Array.from_buffers(pa.binary(self._shape.values), rows, [None, pa.py_buffer(content)])
