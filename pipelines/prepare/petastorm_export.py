"""A dataset version as datasets of petastorm's, one for each split: for training code that reads those.

Runs on: driver; executors (write the files).
Takes:   a published dataset, a folder that every machine sees.
Gives:   ``export_petastorm``: ``FOLDER/train``, ``FOLDER/validation``, ... for petastorm's ``make_reader``; ``exported_version``.

A column with a shape becomes a field with petastorm's ``NdarrayCodec``, any other a scalar. Rows, their order and row groups are
those of the shards. Petastorm keeps its schema as a pickle in ``_common_metadata``: it is written here, by petastorm, and never
read.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from pipelines.errors import ConfigError, SparkringError, StorageError
from pipelines.lake.manifest import MANIFEST_NAME, Manifest
from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore, Store, storage_errors, synced_file
from pipelines.lake.task_facts import Column
from pipelines.prepare.images.decoding import decoded, pixels_of

COMPRESSION = "zstd"


def exported_version(folder: Path) -> str | None:
    """The name and version of the dataset that was exported to a folder; None where there is no such folder.

    Raises:
        ConfigError: it holds something else.
    """
    if not folder.exists():
        return None
    try:
        content = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        return f"{content['name']} {content['version']}"
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(SparkringError("--export", f"{str(folder)!r} exists, and is not an export",
                                         "name a folder that does not exist")) from None


def export_petastorm(session: Callable[[], SparkSession], manifest: Manifest, lake: Lake, folder: Path) -> None:
    """Writes all splits; the folder appears whole, or not at all.

    Raises:
        StorageError: it cannot be written, or another export was first.
    """
    dataset = lake.store.below(lake.dataset(manifest.name, manifest.version))
    with FolderStore(folder.parent).new_folder(folder.name) as staging:
        for split in manifest.splits:
            _export_split(session(), dataset, manifest, split, staging / split)
        manifest.save(staging)


def _export_split(spark: SparkSession, dataset: Store, manifest: Manifest, split: str, folder: Path) -> None:
    with warnings.catch_warnings():  # petastorm goes by pyarrow's names of old
        warnings.simplefilter("ignore")
        from petastorm.etl.dataset_metadata import materialize_dataset
        with storage_errors(folder):
            folder.mkdir()
        shards, columns = [shard.path for shard in manifest.shards(split)], manifest.task.columns

        def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for index in (index for batch in batches for index in batch.column(0).to_pylist()):
                yield pa.RecordBatch.from_pydict({"fault": [_fault_of(dataset, shards[index], columns, folder)]})

        url = f"file://{folder}"  # of which petastorm takes every character as it is
        with materialize_dataset(spark, url, _unischema(columns)):
            written = spark.range(0, len(shards), 1, len(shards)).mapInArrow(write, "fault STRING").collect()
            for fault in (row.fault for row in written if row.fault):
                raise StorageError(str(folder), f"cannot be written: {fault}",
                                   "free space, fix permissions, or name another folder")


def _unischema(columns: Iterable[Column]) -> Any:
    from petastorm.codecs import NdarrayCodec, ScalarCodec
    from petastorm.unischema import Unischema, UnischemaField
    from pyspark.sql.types import ByteType, DoubleType, FloatType, IntegerType, LongType, ShortType

    spark_types = {"int8": ByteType, "int16": ShortType, "int32": IntegerType, "int64": LongType, "float32": FloatType,
                   "float64": DoubleType, "uint8": ShortType, "uint16": IntegerType}
    return Unischema("Rows", [UnischemaField(column.name, np.dtype(column.dtype).type, column.shape, NdarrayCodec()
                                             if column.shape else ScalarCodec(spark_types[column.dtype]()), False)
                              for column in columns])


def _fault_of(dataset: Store, shard: str, columns: tuple[Column, ...], folder: Path) -> str | None:
    """Writes one shard's rows; what went wrong, if anything: an exception would reach the driver as a Java trace."""
    try:
        with dataset.open(shard) as opened, synced_file(folder / shard) as file:
            parquet = pq.ParquetFile(opened)
            schema = pa.schema([pa.field(column.name, pa.binary() if column.shape else column.arrow_type, nullable=False)
                                for column in columns])
            with pq.ParquetWriter(file, schema, compression=COMPRESSION, use_dictionary=False) as writer:
                for index in range(parquet.num_row_groups):
                    table = parquet.read_row_group(index, columns=[column.name for column in columns])
                    values = [_codec_values(column, table.column(column.name).combine_chunks()) for column in columns]
                    writer.write_table(pa.Table.from_arrays(values, schema=schema), table.num_rows)
    except (OSError, pa.ArrowException) as error:
        return f"{shard}: {error}"
    return None


def _codec_values(column: Column, values: pa.Array) -> pa.Array:
    """Values as petastorm's codecs write them: arrays as npy files."""
    if not column.shape:
        return values
    content = (values.values.to_numpy().tobytes() if column.encoding is None
               else b"".join(pixels_of(decoded(file, math.prod(column.shape))) for file in values.to_pylist()))
    rows = np.frombuffer(content, np.uint8).reshape(len(values), -1)
    file = io.BytesIO()
    np.save(file, np.zeros(column.shape, column.dtype), allow_pickle=False)
    head = np.frombuffer(file.getvalue()[: -rows.shape[1]], np.uint8)
    whole = np.hstack([np.broadcast_to(head, (len(rows), len(head))), rows])
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * whole.shape[1]
    return pa.BinaryArray.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(whole)])
