"""Text at URLs, read by Spark's own sources.

Runs on: driver; executors through Spark.
Takes:   inputs whose path has a scheme (``s3a://``, ``hdfs://``, ...) that Spark reads (``config/input_schemes.py``).
Gives:   ``documents`` as ``local_documents.local_documents`` does.

Text and JSON lines: files up to ``WHOLE_BYTES`` are read whole and cut by the code that reads local files. Longer ones are
cut by Spark's text source, with the block of the file as position. That source would hold a line of any length; told a
longest one (``LINE_BYTES``) it drops longer ones without a word, so that the bytes it gave are added up and compared with
the file's (``with_lost_lines``). Files that lost lines, and long compressed ones, are read as local copies
(``local_copies.py``).
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import col, lit

from pipelines.config.datasets import InputSource, TextPrepare
from pipelines.errors import DataError
from pipelines.prepare.input_files import one_line
from pipelines.prepare.inputs import spark_reads
from pipelines.prepare.remote import file_reader, unreadable, without_host
from pipelines.prepare.text.documents import DOCUMENT_DDL, fault_record, record_batches
from pipelines.prepare.text.input_records import Record, oversized_record, value_record
from pipelines.prepare.text.lines import delimiter_of, has_lines, line_record, longest_line_bytes, read_text


class LongFile(NamedTuple):
    """A file of more than ``WHOLE_BYTES`` that is cut into lines."""

    input_index: int
    url: str  # as Spark writes it
    bytes: int

    @property
    def place(self) -> str:
        """Of its input in the recipe."""
        return f"prepare.inputs.{self.input_index}.path"


WHOLE_BYTES = 64 * 1024**2
LINE_BYTES = 8 * 1024**2  # of a line that Spark's text source is let to read: it holds a line whole, and twice as it grows
READ = "read"  # a row that is no record: how many bytes a Spark task read of a long file
MARK_BYTES = 3  # of a byte-order mark, which Spark leaves out
LONGEST_LINE = "mapreduce.input.linerecordreader.line.maxlength"


def long_files_of(spark: SparkSession, inputs: tuple[InputSource, ...]) -> tuple[LongFile, ...]:
    """The long files at URLs that are cut into lines.

    Raises:
        DataError: an input cannot be read.
    """
    found: list[LongFile] = []
    for index, source in _url_sources(inputs):
        if has_lines(source):
            try:
                files = file_reader(spark, source).format("binaryFile").load(source.path).where(col("length") > WHOLE_BYTES)
                rows = files.select(col("_metadata.file_path"), "length").collect()
            except PySparkException as error:
                raise unreadable(f"prepare.inputs.{index}.path", source.path, error) from None
            found += [LongFile(index, url, length) for url, length in sorted(rows)]
    return tuple(found)


def with_lost_lines(prepare: TextPrepare, long_files: Iterable[LongFile], read_bytes: Counter[str]) -> list[LongFile]:
    """The long files of which Spark's text source gave less than they hold; a delimiter or a mark may be missing."""
    def is_whole(file: LongFile) -> bool:
        delimiter = delimiter_of(prepare.inputs[file.input_index])
        return -len(delimiter) <= file.bytes - read_bytes[read_key(file.input_index, file.url)] <= MARK_BYTES

    return [file for file in long_files if not is_whole(file)]


def read_key(index: int, url: str) -> str:
    """The name under which the bytes read of an input's file are added up."""
    return f"{index} {url}"


def remote_documents(spark: SparkSession, prepare: TextPrepare, long_files: Iterable[LongFile],
                     copied: Collection[LongFile]) -> list[DataFrame]:
    """``documents`` of each URL input.

    Args:
        long_files: that Spark cuts into lines. copied: which are not read from their URLs.
    Raises:
        DataError: the input has another schema than the recipe says.
    """
    cut = {file.input_index for file in long_files}
    return [_documents(spark, index, source, prepare, index in cut,
                       [file.url for file in copied if file.input_index == index])
            for index, source in _url_sources(prepare.inputs)]


def _url_sources(inputs: tuple[InputSource, ...]) -> list[tuple[int, InputSource]]:
    return [(index, source) for index, source in enumerate(inputs) if spark_reads(source.path)]


def _documents(spark: SparkSession, index: int, source: InputSource, prepare: TextPrepare, has_long_files: bool,
               copied: list[str]) -> DataFrame:
    place, column, limit = f"prepare.inputs.{index}.path", source.column, prepare.max_document_bytes
    try:
        if source.format == "parquet":
            raw = _parquet(spark, index, source)
            return _cleaned(raw, lambda rows: (value_record(url, at, value, column, limit) for url, at, value in rows),
                            prepare)
        documents = _whole_files(spark, index, source, prepare)
        if has_long_files:
            documents = documents.union(_long_files(spark, index, source, prepare, copied))
        return documents
    except PySparkException as error:
        raise unreadable(place, source.path, error) from None


def _parquet(spark: SparkSession, index: int, source: InputSource) -> DataFrame:
    table = file_reader(spark, source).parquet(source.path)
    kinds = dict(table.dtypes)
    if kinds.get(source.column) not in ("string", "binary"):
        found = f"is {kinds[source.column]}, not text" if source.column in kinds else "is not there"
        raise DataError(f"prepare.inputs.{index}.column", f"{source.column!r} of {source.path} {found}",
                        f"name a column of strings; there are {', '.join(kinds)}")
    return table.select(col("_metadata.file_path"), col("_metadata.row_index"), col(f"`{source.column}`").cast("binary"))


def _whole_files(spark: SparkSession, index: int, source: InputSource, prepare: TextPrepare) -> DataFrame:
    """Files with their content; longer ones without, unless they have lines; and those of no bytes, which a scan omits."""
    files = file_reader(spark, source).format("binaryFile").load(source.path)
    columns = (col("path"), col("length"), col("content"))
    rows = files.where(col("length") <= WHOLE_BYTES).select(*columns)
    if not has_lines(source):
        no_content = lit(None).cast("binary").alias("content")
        rows = rows.union(files.where(col("length") > WHOLE_BYTES).select(col("path"), col("length"), no_content))
        read = {without_host(row.path) for row in files.select("path").toLocalIterator()}
        unread = [(name, 0, b"") for name in files.inputFiles() if unquote(without_host(name)) not in read]
        rows = rows.union(spark.createDataFrame(unread, rows.schema))
    place, limit = f"prepare.inputs.{index}.path", prepare.max_document_bytes

    def records(rows: Iterator[tuple[Any, ...]]) -> Iterator[Record]:
        for url, size, content in rows:
            if content is None:
                yield oversized_record(url, 0, size, limit)
            elif len(content) != size:
                yield fault_record(place, f"{url}: input changed while it was read")
            else:
                try:
                    yield from read_text(io.BytesIO(content), 0, size, size, url, source, limit)
                except (OSError, pa.ArrowException) as error:
                    yield fault_record(place, f"{url} cannot be read ({one_line(error)})")

    return _cleaned(rows, records, prepare)


def _long_files(spark: SparkSession, index: int, source: InputSource, prepare: TextPrepare, copied: list[str]) -> DataFrame:
    """The lines of long files, less the copied ones; behind those of each Spark task, ``READ`` rows: how many bytes it read."""
    limit, delimiter = prepare.max_document_bytes, delimiter_of(source)
    longest = min(longest_line_bytes(source, limit), LINE_BYTES)
    lines = (file_reader(spark, source).option("lineSep", delimiter.decode())
             .option(LONGEST_LINE, longest + len(delimiter) + 1).text(source.path))
    kept = (col("_metadata.file_size") > WHOLE_BYTES) & ~col("_metadata.file_path").isin(copied)
    rows = lines.where(kept).select(
        col("_metadata.file_path"), col("_metadata.file_block_start"), col("value").cast("binary"))

    def records(rows: Iterator[tuple[Any, ...]]) -> Iterator[Record]:
        read_bytes: Counter[str] = Counter()
        for url, at, line in rows:
            read_bytes[url] += len(line) + len(delimiter)
            yield line_record(source, url, at, line, limit)
        for url, size in read_bytes.items():
            yield Record(url, index, None, READ, None, size)

    return _cleaned(rows, records, prepare)


def _cleaned(raw: DataFrame, records: Callable[[Iterator[tuple[Any, ...]]], Iterator[Record]],
             prepare: TextPrepare) -> DataFrame:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from record_batches(records(row for batch in batches for row in zip(
            *(column.to_pylist() for column in batch.columns), strict=True)), deduplicate=prepare.deduplicate)

    return raw.mapInArrow(run, DOCUMENT_DDL)
