"""Tables of images at URLs, read by Spark's own Parquet source.

Runs on: driver; executors through Spark.
Takes:   inputs at URLs that Spark reads (``config/input_schemes.py``).
Gives:   ``RemoteTable``, found by ``remote_table``; ``table_images``: ``images`` as ``local_images.local_images`` gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import col, lit

from pipelines.config.datasets import ImagePrepare
from pipelines.prepare.images.class_names import MOST_CLASSES
from pipelines.prepare.images.decoding import LOOKED_AT, FoundShape, MixedImagesError
from pipelines.prepare.images.image_names import split_word
from pipelines.prepare.images.image_records import IMAGE_DDL, Found, ImageRecord, ImageRecords, fault, image_batches
from pipelines.prepare.images.image_values import KNOWN_CODECS, UnknownCodecError, size_of, value_shape
from pipelines.prepare.images.label_tables import label_text
from pipelines.prepare.images.table_pieces import image_column
from pipelines.prepare.remote import file_reader, unreadable


class RemoteTable(NamedTuple):
    """One input."""

    input_index: int
    format: str  # table or petastorm
    column: str  # of images
    labels: frozenset[str]
    splits: frozenset[str]
    rows: int
    bytes: int  # of its files


def remote_table(spark: SparkSession, index: int, kind: str, size_bytes: int, prepare: ImagePrepare) -> RemoteTable:
    """
    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    source, split_column = prepare.inputs[index], prepare.split_column
    try:
        table = file_reader(spark, source).parquet(source.path)
        column = image_column(dict(table.dtypes), index, source.path, source, split_column)
        labels = frozenset(text for text in map(label_text, _distinct(table, source.label)) if text is not None)
        splits = frozenset(split_word(str(word)) for word in (_distinct(table, split_column) if split_column else ()))
        return RemoteTable(index, kind, column, labels, splits, table.count(), size_bytes)
    except PySparkException as error:
        raise unreadable(source.place(index), source.path, error) from None


def _distinct(table: DataFrame, column: str) -> list[Any]:
    rows = table.select(col(f"`{column}`")).distinct().limit(MOST_CLASSES + 2).collect()
    return [bytes(value) if isinstance(value, bytearray) else value for (value,) in rows]


def _columns(spark: SparkSession, table: RemoteTable, prepare: ImagePrepare) -> DataFrame:
    """Place, image, label and split of each row."""
    source, split_column = prepare.inputs[table.input_index], prepare.split_column
    split = col(f"`{split_column}`") if split_column else lit(None).cast("string")
    return file_reader(spark, source).parquet(source.path).select(
        col("_metadata.file_path"), col("_metadata.row_index"), col(f"`{table.column}`").alias("image"),
        col(f"`{source.label}`").alias("label"), split.alias("split"))


def table_shapes(spark: SparkSession, table: RemoteTable, prepare: ImagePrepare) -> Iterator[FoundShape]:
    """The shapes of some of an input's images."""
    for row in _columns(spark, table, prepare).limit(LOOKED_AT).collect():
        value = row.image.asDict() if hasattr(row.image, "asDict") else row.image
        plain = {key: _plain(part) for key, part in value.items()} if isinstance(value, dict) else _plain(value)
        yield value_shape(row.file_path, plain, prepare.max_image_pixels)


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytearray) else value


def table_images(spark: SparkSession, table: RemoteTable, prepare: ImagePrepare, records: ImageRecords) -> DataFrame:
    """``images`` of an input's rows."""
    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from image_batches(_record(row, table, records) for batch in batches for row in zip(
            *(column.to_pylist() for column in batch.columns), strict=True))

    return _columns(spark, table, prepare).mapInArrow(read, IMAGE_DDL)


def _record(row: tuple[Any, ...], table: RemoteTable, records: ImageRecords) -> ImageRecord:
    path, position, value, label, split = row
    found = Found(path, position, label_text(label), None if split is None else split_word(str(split)), size_of(value))
    try:
        return records.of_value(found, value, strict=table.format == "petastorm")
    except MixedImagesError as error:
        return fault("prepare.inputs", error.problem, error.remedy)
    except UnknownCodecError as error:
        return fault(f"prepare.inputs.{table.input_index}.path", f"{path} holds in column {table.column!r} {error}", KNOWN_CODECS)
