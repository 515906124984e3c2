"""Inputs given as URLs, listed and read by Spark's own sources.

Runs on: driver; executors through Spark.
Takes:   inputs whose path has a scheme (``s3a://``, ``hdfs://``, ...) other than ``file:``.
Gives:   ``documents`` as ``local_files.local_documents`` does, and what makes their fingerprint.

Spark's file sources never read hidden names (``inputs.is_hidden``), in any format.

Text and JSON lines: files up to ``WHOLE_BYTES`` are read whole and cut by the code that reads local files. Longer ones are
cut by Spark's text source, with the block of the file as position. That source would hold a line of any length; told a
longest one (``LINE_BYTES``) it drops longer ones without a word, so that the bytes it gave are added up and compared with
the file's (``with_lost_lines``). Files that lost lines, and long compressed ones, are read as local copies
(``local_copies.py``).
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql.functions import col, lit, xxhash64
from pyspark.sql.functions import sum as total_of

from pipelines.config.recipe import InputSource, Prepare
from pipelines.errors import DataError
from pipelines.prepare.compressed import ENDINGS
from pipelines.prepare.input_records import Record, oversized_record, value_record
from pipelines.prepare.inputs import is_url, one_line
from pipelines.prepare.text.documents import DOCUMENT_DDL, fault_record, record_batches
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


class RemoteSummary(NamedTuple):
    """All URL inputs together."""

    files: int
    bytes: int
    identity: str  # changes when a file's name, size or modification time does
    long_files: tuple[LongFile, ...]  # that Spark cuts into lines
    copied: frozenset[LongFile] = frozenset()  # which are not read from their URLs

    def without(self, files: Iterable[LongFile]) -> RemoteSummary:
        """Less ``files``, of which there are copies."""
        copied = frozenset(files)
        return self._replace(bytes=self.bytes - sum(file.bytes for file in copied), copied=self.copied | copied,
                             long_files=tuple(file for file in self.long_files if file not in copied))


NO_REMOTE = RemoteSummary(0, 0, "", ())
WHOLE_BYTES = 64 * 1024**2
LINE_BYTES = 8 * 1024**2  # of a line that Spark's text source is let to read: it holds a line whole, and twice as it grows
READ = "read"  # a row that is no record: how many bytes a Spark task read of a long file
MARK_BYTES = 3  # of a byte-order mark, which Spark leaves out
LONGEST_LINE = "mapreduce.input.linerecordreader.line.maxlength"


def summarize_remote(spark: SparkSession, inputs: tuple[InputSource, ...]) -> RemoteSummary:
    """Lists the URL inputs.

    Raises:
        DataError: an input cannot be read or holds no file.
    """
    files, total, identities, long_files = 0, 0, [], list[LongFile]()
    for index, source in _remote(inputs):
        place = f"prepare.inputs.{index}.path"
        try:
            found = _reader(spark, source).format("binaryFile").load(source.path)
            names = sorted(found.inputFiles())  # with the files of no bytes, which a scan leaves out
            hashes = xxhash64("path", "length", "modificationTime").cast("decimal(38,0)")
            size, identity = found.agg(total_of("length"), total_of(hashes)).first() or (0, 0)
            if has_lines(source):
                urls = found.where(col("length") > WHOLE_BYTES).select(col("_metadata.file_path"), "length")
                long_files += [LongFile(index, url, length) for url, length in sorted(urls.collect())]
        except PySparkException as error:
            raise unreadable(place, source.path, error) from None
        if not names:
            raise DataError(place, f"{source.path!r} holds no files that Spark reads",
                            "give a file, folder or glob that does (Spark skips names that start with '_' or '.')")
        files, total = files + len(names), total + (size or 0)
        one_document = source.format == "text" and not has_lines(source)
        if one_document and any(name.endswith(ENDINGS) for name in names):
            names.append("decompressed")  # the first release read such documents as they are: not the same dataset
        identities.append((index, hashlib.sha256("\n".join(names).encode()).hexdigest(), size, str(identity)))
    return RemoteSummary(files, total, repr(identities), tuple(long_files))


def refuse_changed(spark: SparkSession, prepare: Prepare, remote: RemoteSummary) -> None:
    """Lists the URL inputs again, after they were read.

    Raises:
        DataError: the listing is another than before.
    """
    if remote.files and summarize_remote(spark, prepare.inputs).identity != remote.identity:
        urls = ", ".join(source.path for _, source in _remote(prepare.inputs))
        raise DataError("prepare.inputs", f"{urls}: input changed while it was read",
                        "prepare again when nothing writes to the input")


def with_lost_lines(prepare: Prepare, remote: RemoteSummary, read_bytes: Counter[str]) -> list[LongFile]:
    """The long files of which Spark's text source gave less than they hold; a delimiter or a mark may be missing."""
    def is_whole(file: LongFile) -> bool:
        delimiter = delimiter_of(prepare.inputs[file.input_index])
        return -len(delimiter) <= file.bytes - read_bytes[read_key(file.input_index, file.url)] <= MARK_BYTES

    return [file for file in remote.long_files if not is_whole(file)]


def read_key(index: int, url: str) -> str:
    """The name under which the bytes read of an input's file are added up."""
    return f"{index} {url}"


def unreadable(place: str, path: str, error: BaseException) -> DataError:
    """A Spark error while reading, without its Java stack trace."""
    return DataError(place, f"{path!r} cannot be read by Spark: {java_cause(error)}",
                     "check the path, its format, and that this session can reach it")


def java_cause(error: BaseException) -> str:
    """The one line of a Java or Python trace that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    told = [line for line in lines if line.startswith("Caused by:") or "Error: " in line]
    named = [line for line in lines if "while reading file" in line]
    return (named or told[::-1] or lines or [type(error).__name__])[0][:400]


def remote_documents(spark: SparkSession, prepare: Prepare, remote: RemoteSummary) -> list[DataFrame]:
    """``documents`` of each URL input, less those of the files that are copied.

    Raises:
        DataError: the input has another schema than the recipe says.
    """
    return [_documents(spark, index, source, prepare, remote) for index, source in _remote(prepare.inputs)]


def _remote(inputs: tuple[InputSource, ...]) -> list[tuple[int, InputSource]]:
    return [(index, source) for index, source in enumerate(inputs) if is_url(source.path)]


def _reader(spark: SparkSession, source: InputSource) -> DataFrameReader:
    reader = spark.read.option("recursiveFileLookup", "true")
    return reader.option("pathGlobFilter", source.pattern) if source.pattern else reader


def _documents(spark: SparkSession, index: int, source: InputSource, prepare: Prepare,
               remote: RemoteSummary) -> DataFrame:
    place, column, limit = f"prepare.inputs.{index}.path", source.column, prepare.max_document_bytes
    try:
        if source.format == "parquet":
            raw = _parquet(spark, index, source)
            return _cleaned(raw, lambda rows: (value_record(url, at, value, column, limit) for url, at, value in rows),
                            prepare)
        documents = _whole_files(spark, index, source, prepare)
        if any(file.input_index == index for file in remote.long_files):
            documents = documents.union(_long_files(spark, index, source, prepare, remote))
        return documents
    except PySparkException as error:
        raise unreadable(place, source.path, error) from None


def _parquet(spark: SparkSession, index: int, source: InputSource) -> DataFrame:
    table = _reader(spark, source).parquet(source.path)
    kinds = dict(table.dtypes)
    if kinds.get(source.column) not in ("string", "binary"):
        found = f"is {kinds[source.column]}, not text" if source.column in kinds else "is not there"
        raise DataError(f"prepare.inputs.{index}.column", f"{source.column!r} of {source.path} {found}",
                        f"name a column of strings; there are {', '.join(kinds)}")
    return table.select(col("_metadata.file_path"), col("_metadata.row_index"), col(f"`{source.column}`").cast("binary"))


def _whole_files(spark: SparkSession, index: int, source: InputSource, prepare: Prepare) -> DataFrame:
    """Files with their content; longer ones without, unless they have lines; and those of no bytes, which a scan omits."""
    files = _reader(spark, source).format("binaryFile").load(source.path)
    columns = (col("path"), col("length"), col("content"))
    rows = files.where(col("length") <= WHOLE_BYTES).select(*columns)
    if not has_lines(source):
        no_content = lit(None).cast("binary").alias("content")
        rows = rows.union(files.where(col("length") > WHOLE_BYTES).select(col("path"), col("length"), no_content))
        read = {_without_host(row.path) for row in files.select("path").toLocalIterator()}
        unread = [(name, 0, b"") for name in files.inputFiles() if unquote(_without_host(name)) not in read]
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


def _long_files(spark: SparkSession, index: int, source: InputSource, prepare: Prepare,
                remote: RemoteSummary) -> DataFrame:
    """The lines of long files, less the copied ones; behind those of each Spark task, ``READ`` rows: how many bytes it read."""
    limit, delimiter = prepare.max_document_bytes, delimiter_of(source)
    longest = min(longest_line_bytes(source, limit), LINE_BYTES)
    lines = (_reader(spark, source).option("lineSep", delimiter.decode())
             .option(LONGEST_LINE, longest + len(delimiter) + 1).text(source.path))
    copied = [file.url for file in remote.copied if file.input_index == index]
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


def _without_host(url: str) -> str:
    """The path in a URL, which Spark writes as ``file:/a`` here and ``file:///a`` there."""
    return re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?", "", url)


def _cleaned(raw: DataFrame, records: Callable[[Iterator[tuple[Any, ...]]], Iterator[Record]],
             prepare: Prepare) -> DataFrame:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from record_batches(records(row for batch in batches for row in zip(
            *(column.to_pylist() for column in batch.columns), strict=True)), deduplicate=prepare.deduplicate)

    return raw.mapInArrow(run, DOCUMENT_DDL)
