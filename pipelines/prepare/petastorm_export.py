"""A dataset version as datasets of petastorm's, one for each split: for training code that reads those.

Runs on: driver; executors (write the files).
Takes:   a published dataset, a folder that every machine sees.
Gives:   ``export_petastorm``: ``FOLDER/train``, ``FOLDER/validation``, ... for petastorm's ``make_reader``; ``exported_version``.

A column with a shape becomes a field with petastorm's ``NdarrayCodec``, any other a scalar. Rows, their order and row groups are
those of the shards, each of which is held against the manifest first. Petastorm keeps its schema as a pickle in
``_common_metadata``: it is written here, by petastorm, and never read.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from pipelines.errors import ConfigError, DataError, SparkringError
from pipelines.lake.manifest import MANIFEST_NAME, Manifest, Shard
from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore, Store, storage_errors, synced_file
from pipelines.lake.task_facts import VALUE_BYTES, Column
from pipelines.prepare.images.decoding import RefusedImageError, decoded, pixels_of, shape_of
from pipelines.prepare.outcomes import raise_faults

COMPRESSION = "zstd"
ARRAY_BYTES = 64 * 1024**2  # of values at once: Arrow's arrays hold less than 2 GiB
REMEDY = "restore the file, or delete the dataset version and prepare again"


def exported_version(folder: Path) -> str | None:
    """The name and version of the dataset that was exported to a folder; None where there is no such folder, or nothing in it.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        if not any(folder.iterdir()):
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(SparkringError("--export", f"{str(folder)!r} is not a folder that can be read ({error.strerror})",
                                         "name another folder")) from None
    try:
        content = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        return f"{content['name']} {content['version']}"
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(SparkringError("--export", f"{str(folder)!r} exists, and is not an export",
                                         "name a folder that is empty or does not exist")) from None


def export_petastorm(session: Callable[[], SparkSession], manifest: Manifest, lake: Lake, folder: Path) -> None:
    """Writes all splits; the folder appears whole, or not at all.

    Raises:
        DataError: a shard is not what was published.
        StorageError: it cannot be written, or another export was first.
    """
    dataset = lake.store.below(lake.dataset(manifest.name, manifest.version))
    with FolderStore(folder.parent).new_folder(folder.name) as staging:
        for split in manifest.splits:
            _export_split(session(), dataset, manifest, split, staging / split)
        manifest.save(FolderStore(staging))


def _export_split(spark: SparkSession, dataset: Store, manifest: Manifest, split: str, folder: Path) -> None:
    with warnings.catch_warnings():  # petastorm goes by pyarrow's names of old
        warnings.simplefilter("ignore")
        from petastorm.etl.dataset_metadata import materialize_dataset
        with storage_errors(folder):
            folder.mkdir()
        shards, columns = manifest.shards(split), manifest.task.columns

        def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for index in (index for batch in batches for index in batch.column(0).to_pylist()):
                yield pa.RecordBatch.from_pydict({"outcome": [json.dumps(_outcome(dataset, shards[index], columns, folder))]})

        url = f"file://{folder}"  # of which petastorm takes every character as it is
        with materialize_dataset(spark, url, _unischema(columns)):
            written = spark.range(0, len(shards), 1, len(shards)).mapInArrow(write, "outcome STRING").collect()
            raise_faults([json.loads(row.outcome) for row in written])


def _unischema(columns: Iterable[Column]) -> Any:
    from petastorm.codecs import NdarrayCodec, ScalarCodec
    from petastorm.unischema import Unischema, UnischemaField
    from pyspark.sql.types import ByteType, DoubleType, FloatType, IntegerType, LongType, ShortType

    spark_types = {"int8": ByteType, "int16": ShortType, "int32": IntegerType, "int64": LongType, "float32": FloatType,
                   "float64": DoubleType, "uint8": ShortType, "uint16": IntegerType}
    return Unischema("Rows", [UnischemaField(column.name, np.dtype(column.dtype).type, column.shape, NdarrayCodec()
                                             if column.shape else ScalarCodec(spark_types[column.dtype]()), False)
                              for column in columns])


def _outcome(dataset: Store, shard: Shard, columns: tuple[Column, ...], folder: Path) -> dict[str, Any]:
    """Writes one shard's rows; what went wrong, if anything: an exception would reach the driver as a Java trace."""
    schema = pa.schema([pa.field(column.name, pa.binary() if column.shape else column.arrow_type, nullable=False)
                        for column in columns])
    try:
        with (synced_file(folder / shard.path) as file,
              pq.ParquetWriter(file, schema, compression=COMPRESSION, use_dictionary=False) as writer):
            for values in _row_groups(dataset, shard, columns):
                table = pa.Table.from_arrays(values, schema=schema)
                writer.write_table(table, max(1, table.num_rows))
    except DataError as error:
        return {"fault": {"kind": "data", "place": error.place, "problem": error.problem, "remedy": error.remedy}}
    except (OSError, pa.ArrowException) as error:
        return {"fault": {"kind": "storage", "place": str(folder / shard.path), "problem": str(error),
                          "remedy": "free space, fix permissions, or name another folder"}}
    return {}


def _row_groups(dataset: Store, shard: Shard, columns: tuple[Column, ...]) -> Iterator[list[pa.ChunkedArray]]:
    """The columns of each row group as petastorm's codecs write them.

    Raises:
        DataError: the shard is missing, is not what was published, or holds what is no row.
    """
    place = dataset.place(shard.path)
    with _reading(place):
        if dataset.sha256(shard.path) != shard.sha256:
            raise DataError(place, "has changed since it was published (its SHA-256 is another)", REMEDY)
        with dataset.open(shard.path) as opened:
            parquet = pq.ParquetFile(opened)
            for index in range(parquet.num_row_groups):
                table = parquet.read_row_group(index, columns=[column.name for column in columns])
                yield [_codec_values(column, table.column(column.name)) for column in columns]


@contextmanager
def _reading(place: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(place, "is missing", REMEDY) from None
    except (OSError, pa.ArrowException, RefusedImageError) as error:
        raise DataError(place, f"cannot be read: {' '.join(str(error).split())}", REMEDY) from error


def _codec_values(column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as petastorm's codecs write them: arrays as npy files."""
    if not column.shape:
        return values
    rows = max(1, ARRAY_BYTES // column.row_bytes)
    return pa.chunked_array([_npy_files(column, chunk.slice(first, rows)) for chunk in values.chunks
                             for first in range(0, len(chunk), rows)], pa.binary())


def _npy_files(column: Column, values: pa.Array) -> pa.Array:
    if column.encoding is None:
        content = values.flatten().to_numpy().tobytes()
    else:
        content = b"".join(values.to_pylist() if column.encoding == VALUE_BYTES
                           else (_pixels(column, file) for file in values.to_pylist()))
    rows = np.frombuffer(content, np.uint8).reshape(len(values), -1)
    file = io.BytesIO()
    np.save(file, np.zeros(column.shape, column.dtype), allow_pickle=False)
    head = np.frombuffer(file.getvalue()[: -rows.shape[1]], np.uint8)
    whole = np.hstack([np.broadcast_to(head, (len(rows), len(head))), rows])
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * whole.shape[1]
    return pa.BinaryArray.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(whole)])


def _pixels(column: Column, file: bytes) -> bytes:
    """
    Raises:
        RefusedImageError: it is no image of the column's shape.
    """
    image = decoded(file, math.prod(column.shape))
    if shape_of(image) != column.shape:
        raise RefusedImageError("wrong_size", f"an image is {shape_of(image)}, not {column.shape}")
    return pixels_of(image)
