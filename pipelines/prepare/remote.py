"""Inputs given as URLs, listed and read by Spark's own sources.

Runs on: driver; executors through Spark.
Takes:   inputs whose path has a scheme (``s3a://``, ``hdfs://``, ``file://``, ...).
Gives:   ``documents`` as ``reading.local_documents`` does, and what makes their fingerprint.

Spark's file sources never read names that start with a dot or an underscore, in any format. The position of a record of
a text file that is cut at a delimiter is the offset of the block of the file that Spark read it in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F

from pipelines.config.recipe import InputSource, Prepare
from pipelines.errors import DataError
from pipelines.prepare.inputs import is_url
from pipelines.prepare.reading import DOCUMENT_DDL, record_batches
from pipelines.prepare.records import Record, json_record, oversized_record, text_record, value_record


class RemoteSummary(NamedTuple):
    """All URL inputs together."""

    files: int
    bytes: int
    identity: str  # changes when a file's name, size or modification time does


def summarize_remote(spark: SparkSession, inputs: tuple[InputSource, ...]) -> RemoteSummary:
    """Lists the URL inputs.

    Raises:
        DataError: an input cannot be read or holds no file.
    """
    files, total, identities = 0, 0, []
    for index, source in _remote(inputs):
        place = f"prepare.inputs.{index}.path"
        try:
            listed = _reader(spark, source).format("binaryFile").load(source.path).agg(
                F.count("*"), F.sum("length"), F.sum(F.xxhash64("path", "length", "modificationTime").cast("decimal(38,0)")))
            count, size, identity = listed.first() or (0, 0, 0)
        except PySparkException as error:
            raise unreadable(place, source.path, error) from None
        if not count:
            raise DataError(place, f"{source.path!r} holds no files that Spark reads",
                            "give a file, folder or glob that does (Spark skips names that start with '_' or '.')")
        files, total = files + count, total + size
        identities.append((index, count, size, str(identity)))
    return RemoteSummary(files, total, repr(identities))


def unreadable(place: str, path: str, error: BaseException) -> DataError:
    """A Spark error without its Java stack trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.lstrip().startswith(("at ", "JVM "))]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return DataError(place, f"{path!r} cannot be read by Spark: {(causes or lines or [type(error).__name__])[-1][:300]}",
                     "check the path, its format, and that this session can reach it")


def remote_documents(spark: SparkSession, prepare: Prepare) -> list[DataFrame]:
    """``documents`` of each URL input.

    Raises:
        DataError: the input has another schema than the recipe says.
    """
    return [_documents(spark, index, source, prepare.max_document_bytes) for index, source in _remote(prepare.inputs)]


def _remote(inputs: tuple[InputSource, ...]) -> list[tuple[int, InputSource]]:
    return [(index, source) for index, source in enumerate(inputs) if is_url(source.path)]


def _reader(spark: SparkSession, source: InputSource) -> DataFrameReader:
    reader = spark.read.option("recursiveFileLookup", "true")
    return reader.option("pathGlobFilter", source.pattern) if source.pattern else reader


def _documents(spark: SparkSession, index: int, source: InputSource, limit: int) -> DataFrame:
    place, column = f"prepare.inputs.{index}.path", source.column
    try:
        if source.format == "parquet":
            raw = _parquet(spark, index, source)
            return _cleaned(raw, lambda path, at, value, size: value_record(path, at, value, column, limit))
        if source.format == "jsonl":
            raw = _pieces(spark, source, "\n")
            return _cleaned(raw, lambda path, at, value, size: json_record(path, at, value or b"", column, limit))
        raw = _pieces(spark, source, source.delimiter) if source.delimiter else _whole_files(spark, source, limit)
        return _cleaned(raw, lambda path, at, value, size: oversized_record(path, at, size, limit) if value is None
                        else text_record(path, at, value, limit))
    except PySparkException as error:
        raise unreadable(place, source.path, error) from None


def _parquet(spark: SparkSession, index: int, source: InputSource) -> DataFrame:
    table = _reader(spark, source).parquet(source.path)
    kinds = dict(table.dtypes)
    if kinds.get(source.column) not in ("string", "binary"):
        found = f"is {kinds[source.column]}, not text" if source.column in kinds else "is not there"
        raise DataError(f"prepare.inputs.{index}.column", f"{source.column!r} of {source.path} {found}",
                        f"name a column of strings; there are {', '.join(kinds)}")
    return table.select(F.col("_metadata.file_path").alias("source"), F.col("_metadata.row_index").alias("position"),
                        F.col(f"`{source.column}`").cast("binary").alias("raw"), F.lit(0).cast("bigint").alias("bytes"))


def _pieces(spark: SparkSession, source: InputSource, delimiter: str) -> DataFrame:
    lines = _reader(spark, source).option("lineSep", delimiter).text(source.path)
    return lines.select(F.col("_metadata.file_path").alias("source"), F.col("_metadata.file_block_start").alias("position"),
                        F.col("value").cast("binary").alias("raw"), F.lit(0).cast("bigint").alias("bytes"))


def _whole_files(spark: SparkSession, source: InputSource, limit: int) -> DataFrame:
    """The content of files up to the limit; of longer ones only the size is read."""
    files = _reader(spark, source).format("binaryFile").load(source.path)

    def facts(raw: Column) -> list[Column]:
        return [F.col("path").alias("source"), F.lit(0).cast("bigint").alias("position"), raw.alias("raw"),
                F.col("length").alias("bytes")]

    small = files.where(F.col("length") <= limit).select(*facts(F.col("content")))
    return small.union(files.where(F.col("length") > limit).select(*facts(F.lit(None).cast("binary"))))


def _cleaned(raw: DataFrame, clean: Callable[[str, int, bytes | None, int], Record]) -> DataFrame:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return record_batches(clean(*row) for batch in batches
                              for row in zip(*(column.to_pylist() for column in batch.columns), strict=True))

    return raw.mapInArrow(run, DOCUMENT_DDL)
