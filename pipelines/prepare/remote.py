"""Inputs given as URLs, listed and read by Spark's own sources.

Runs on: driver; executors through Spark.
Takes:   inputs whose path has a scheme (``s3a://``, ``hdfs://``, ...) other than ``file:``.
Gives:   ``documents`` as ``reading.local_documents`` does, and what makes their fingerprint.

Spark's file sources never read hidden names (``inputs.is_hidden``), in any format. The position of a record of a text
file that is cut at a delimiter is the offset of the block of the file that Spark read it in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql.functions import col, lit, xxhash64
from pyspark.sql.functions import sum as total_of

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
            found = _reader(spark, source).format("binaryFile").load(source.path)
            names = sorted(found.inputFiles())  # with the files of no bytes, which a scan leaves out
            hashes = xxhash64("path", "length", "modificationTime").cast("decimal(38,0)")
            size, identity = found.agg(total_of("length"), total_of(hashes)).first() or (0, 0)
        except PySparkException as error:
            raise unreadable(place, source.path, error) from None
        if not names:
            raise DataError(place, f"{source.path!r} holds no files that Spark reads",
                            "give a file, folder or glob that does (Spark skips names that start with '_' or '.')")
        files, total = files + len(names), total + (size or 0)
        identities.append((index, hashlib.sha256("\n".join(names).encode()).hexdigest(), size, str(identity)))
    return RemoteSummary(files, total, repr(identities))


def unreadable(place: str, path: str, error: BaseException) -> DataError:
    """A Spark error while reading, without its Java stack trace."""
    return DataError(place, f"{path!r} cannot be read by Spark: {first_cause(error)}",
                     "check the path, its format, and that this session can reach it")


def first_cause(error: BaseException) -> str:
    """The one line of a Java or Python trace that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    told = [line for line in lines if line.startswith("Caused by:") or "Error: " in line]
    named = [line for line in lines if "while reading file" in line]
    return (named or told[::-1] or lines or [type(error).__name__])[0][:400]


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
    return table.select(*_raw(col("_metadata.file_path"), col("_metadata.row_index"),
                              col(f"`{source.column}`").cast("binary"), lit(0)))


def _raw(source: Column, position: Column, raw: Column, size: Column) -> list[Column]:
    """The columns that ``_cleaned`` takes."""
    return [source.alias("source"), position.cast("bigint").alias("position"), raw.alias("raw"),
            size.cast("bigint").alias("bytes")]


def _pieces(spark: SparkSession, source: InputSource, delimiter: str) -> DataFrame:
    lines = _reader(spark, source).option("lineSep", delimiter).text(source.path)
    return lines.select(*_raw(col("_metadata.file_path"), col("_metadata.file_block_start"),
                              col("value").cast("binary"), lit(0)))


def _whole_files(spark: SparkSession, source: InputSource, limit: int) -> DataFrame:
    """Files up to the limit with their content, longer ones without, and those of no bytes, which a scan leaves out."""
    files = _reader(spark, source).format("binaryFile").load(source.path)
    small = files.where(col("length") <= limit).select(*_raw(col("path"), lit(0), col("content"), col("length")))
    no_content = lit(None).cast("binary")
    large = files.where(col("length") > limit).select(*_raw(col("path"), lit(0), no_content, col("length")))
    read = {_without_host(row.path) for row in files.select("path").toLocalIterator()}
    unread = [(name, 0, b"", 0) for name in files.inputFiles() if unquote(_without_host(name)) not in read]
    return small.union(large).union(spark.createDataFrame(unread, small.schema))


def _without_host(url: str) -> str:
    """The path in a URL, which Spark writes as ``file:/a`` here and ``file:///a`` there."""
    return re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?", "", url)


def _cleaned(raw: DataFrame, clean: Callable[[str, int, bytes | None, int], Record]) -> DataFrame:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return record_batches(clean(*row) for batch in batches
                              for row in zip(*(column.to_pylist() for column in batch.columns), strict=True))

    return raw.mapInArrow(run, DOCUMENT_DDL)
