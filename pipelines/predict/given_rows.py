"""The rows that a model is asked about: files, or a table of the Spark session, as one DataFrame.

Runs on: driver.
Takes:   a path, a glob, a URL or a table's name; the section ``predict``.
Gives:   ``look_at``: which files there are and what makes them these and no others, without Spark where they are local;
         ``rows_of``: DataFrame ``given`` (``GIVEN_DDL``).

Spark cuts files into ranges (``split_bytes``), and a row is known by its range and its place in it, so that what has been
answered is known wherever that was done.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from os.path import lexists
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql.functions import col, conv, lit, md5, octet_length, split, substring, when
from pyspark.sql.types import ArrayType, DataType, NumericType

from pipelines.config.datasets import InputPath
from pipelines.config.predictions import Predict
from pipelines.config.secrets import has_credentials
from pipelines.errors import ConfigError, DataError, SparkringError
from pipelines.lake.remote_folder import local_path
from pipelines.predict.contracts import Contract
from pipelines.prepare.inputs import fingerprint, is_url, list_files
from pipelines.prepare.remote import file_reader, unreadable, without_host
from pipelines.prepare.text.input_records import JSON_LINE_FACTOR

# content: of tables, of a type that the task takes
GIVEN_DDL = "file STRING, start BIGINT, row BIGINT, id STRING, content BINARY, bytes BIGINT"
MIN_SPLIT_BYTES, MAX_SPLIT_BYTES, USUAL_SPLITS = 64 * 1024, 16 * 1024**2, 64
PLACE = "--input"
GROUP_DIGITS = 3  # of digests in ``is_none_of``
_TABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,2}")
_ENDINGS: dict[str, str] = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".png": "image",
                            ".jpg": "image", ".jpeg": "image", ".webp": "image"}
_COMPRESSED = (".gz", ".bz2", ".zst")


class Look(NamedTuple):
    """An input before it is read."""

    path: str  # absolute where it is local; a URL; a table's name
    format: str  # as ``predict.format`` names it, or "table", or "image"
    files: int
    bytes: int
    identity: str  # another one once a file's name or content is

    @property
    def split_bytes(self) -> int:
        """Ranges of files that are answered by one Spark task; by the input alone, so that it is cut alike on any cluster."""
        return min(max(self.bytes // USUAL_SPLITS, MIN_SPLIT_BYTES), MAX_SPLIT_BYTES)


def is_local(path: str) -> bool:
    """Whether files of this machine's file systems are meant: seen without Spark."""
    return lexists(local_path(path)) or not (is_url(path) or _TABLE.fullmatch(path))


def look_at(path: str, settings: Predict, lake_root: Path, spark: SparkSession | None = None) -> Look:
    """
    Args:
        spark: for what ``is_local`` is not.
    Raises:
        ConfigError: a password or token in a URL. DataError: nothing is there, or it cannot be read.
    """
    if has_credentials(path):
        raise ConfigError(SparkringError(PLACE, "holds a password or token, which would be written beside the predictions",
                                         "give it to the file system by spark.conf or the environment"))
    if spark is None:
        with _our_place():
            plain = str(Path(local_path(path)).expanduser().absolute())
            files = list_files((InputPath(path=plain),), lake_root)
            return Look(plain, settings.format or _format_of([file.name for file in files]), len(files),
                        sum(file.bytes for file in files), fingerprint(files))
    with _spark_place(path):
        if is_url(path):
            listed = _listed(spark, [path])
            return _look(path, settings.format or _format_of([name for name, *_ in listed]), listed)
        if not spark.catalog.tableExists(path):
            raise DataError(PLACE, f"{path!r} is neither a file or folder nor a table of this session",
                            "give a path, a URL, or the name of a table in the catalog that spark.conf names")
        files_of_it = spark.read.table(path).inputFiles()
        if not files_of_it:
            raise DataError(PLACE, f"the table {path!r} is not made of files", "write it as Parquet, and give that path")
        return _look(path, "table", _listed(spark, [_escaped(file) for file in files_of_it]))


def _look(path: str, form: str, listed: list[tuple[str, int, str]]) -> Look:
    return Look(path, form, len(listed), sum(size for _, size, _ in listed),
                hashlib.sha256(repr(sorted(listed)).encode()).hexdigest())


def _listed(spark: SparkSession, paths: Sequence[str]) -> list[tuple[str, int, str]]:
    """Name, bytes and time of every file, those of no bytes too, which a scan leaves out."""
    found = spark.read.option("recursiveFileLookup", "true").format("binaryFile").load(list(paths))
    rows = [(row.file_path, row.length, str(row.modificationTime))
            for row in found.select(col("_metadata.file_path"), "length", "modificationTime").collect()]
    return rows + [(name, 0, "") for name in _unscanned(found, [name for name, *_ in rows])]


def _unscanned(files: DataFrame, scanned: Sequence[str]) -> list[str]:
    """Files of no bytes, by the names that Spark's listing gives them: a scan writes ``file:/a`` where it has ``file:///a``."""
    seen = {without_host(unquote(name)) for name in scanned}
    return sorted(name for name in files.inputFiles() if without_host(unquote(name)) not in seen)


def _format_of(names: Sequence[str]) -> str:
    def format_of(name: str) -> str:
        plain = name.lower()
        for ending in _COMPRESSED:
            plain = plain.removesuffix(ending)
        return _ENDINGS.get(Path(plain).suffix, "text")

    found = {format_of(name): name for name in names}
    if len(found) > 1:
        examples = ", ".join(f"{name} ({form})" for form, name in sorted(found.items()))
        raise DataError(PLACE, f"holds files of several kinds: {examples}",
                        "give one kind, or say which with --set predict.format=parquet, jsonl, text, lines or image")
    return next(iter(found))


class GivenRows(NamedTuple):
    """Rows, and where what the model is asked about is."""

    rows: DataFrame  # ``GIVEN_DDL``
    arrays: str | None = None  # a column of arrays of the files, which workers read themselves: content is null


def rows_of(spark: SparkSession, look: Look, contract: Contract) -> GivenRows:
    """
    Raises:
        DataError: the columns are not there or of other types; the files cannot be read.
    """
    with _spark_place(look.path):
        if look.format in ("parquet", "table"):
            return _table_rows(spark, look, contract)
        if look.format in ("text", "image"):
            return GivenRows(_document_rows(spark, look, contract.max_bytes))
        lines = _reader(spark, look).text(_spark_path(look.path))
        if look.format == "jsonl":
            _refuse_other_objects(lines, look, contract.column)
        return GivenRows(_given(lines, lit(None), lit(None), (col("value").cast("binary"), octet_length("value")),
                                contract.max_bytes * JSON_LINE_FACTOR))


def _given(files: DataFrame, row: Column, row_id: Column, content_and_size: tuple[Column, Column], most_bytes: int) -> DataFrame:
    content, size = content_and_size
    return files.select(col("_metadata.file_path").alias("file"), col("_metadata.file_block_start").alias("start"),
                        row.cast("bigint").alias("row"), row_id.cast("string").alias("id"),
                        when(size > most_bytes, lit(None)).otherwise(content).alias("content"),
                        size.cast("bigint").alias("bytes"))


def _table_rows(spark: SparkSession, look: Look, contract: Contract) -> GivenRows:
    settings, asked = contract.settings, contract.asked
    if look.format == "table":
        table = spark.read.table(look.path)
    else:
        table = _reader(spark, look).parquet(_spark_path(look.path))
    kinds = dict(table.dtypes)
    column = settings.column or asked.column(kinds)
    given = asked.given(col(f"`{column}`"), table.schema[column].dataType) if column in kinds else None
    if given is None:
        found = (f"is {kinds[column]}, but the model is for the task {contract.task}, which takes {asked.takes}s"
                 if column in kinds else "is not there")
        raise DataError("predict.column", f"{column!r} of {look.path} {found}",
                        f"name a column of {asked.values} with --set predict.column=...; there are {', '.join(kinds)}")
    name = settings.id_column
    if name is not None and (name not in kinds or re.match("array|map|struct", kinds[name])):
        found = f"is {kinds[name]}, which names no row" if name in kinds else "is not there"
        raise DataError("predict.id_column", f"{name!r} of {look.path} {found}", f"there are {', '.join(kinds)}")
    has_index = look.format == "parquet"
    apart = has_index and not is_url(look.path) and _is_flat_array(table.schema[column].dataType) and "." not in column
    return GivenRows(_given(table, col("_metadata.row_index") if has_index else lit(None),
                            lit(None) if name is None else col(f"`{name}`"),
                            (lit(None).cast("binary"), lit(None)) if apart else given, contract.max_bytes),
                     column if apart else None)


def _is_flat_array(kind: DataType) -> bool:
    return isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType)


def _document_rows(spark: SparkSession, look: Look, max_bytes: int) -> DataFrame:
    """A row for each file; content of those that are not too long, and of no bytes for those that a scan leaves out."""
    files = _reader(spark, look).format("binaryFile").load(_spark_path(look.path))
    columns = (col("_metadata.file_path").alias("file"), lit(0).cast("bigint").alias("start"),
               lit(None).cast("bigint").alias("row"), lit(None).cast("string").alias("id"))
    short = files.where(col("length") <= max_bytes).select(*columns, "content", col("length").alias("bytes"))
    long = files.where(col("length") > max_bytes).select(*columns, lit(None).cast("binary").alias("content"),
                                                                      col("length").alias("bytes"))
    scanned = [row.file for row in files.select(columns[0]).collect()]
    empty = [(name, 0, None, None, bytearray(), 0) for name in _unscanned(files, scanned)]
    rows = short.union(long)
    return rows.union(spark.createDataFrame(empty, GIVEN_DDL)) if empty else rows


def is_none_of(file: Column, names: Iterable[str]) -> Column:
    """Whether a file has none of these names, of which there may be very many.

    By it Spark leaves files out before it opens them, which it does for no join. To the query the names are one text: their
    digests, those with the same first digits together, so that each file is looked for among a few.
    """
    groups: list[list[str]] = [[] for _ in range(16**GROUP_DIGITS)]
    for name in names:
        answered = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
        groups[int(answered[:GROUP_DIGITS], 16)].append(answered)
    digest = md5(file.cast("binary"))
    group = split(lit(" ".join(map(",".join, groups))), " ")[conv(substring(digest, 1, GROUP_DIGITS), 16, 10).cast("int")]
    return ~group.contains(digest)


def _refuse_other_objects(lines: DataFrame, look: Look, column: str) -> None:
    """Where none of the first lines has the field: it is another name, or not what the model takes."""
    fields: dict[str, None] = {}
    for row in lines.limit(100).collect():
        try:
            found = json.loads(row.value)
        except ValueError:
            continue
        fields |= dict.fromkeys(found if isinstance(found, dict) else ())
    if fields and column not in fields:
        raise DataError("predict.column", f"{column!r} is in none of the first lines of {look.path}",
                        f"name a field with --set predict.column=...; there are {', '.join(fields)}")


def _reader(spark: SparkSession, look: Look) -> DataFrameReader:
    return file_reader(spark, InputPath(path=look.path))


def _spark_path(path: str) -> str:
    """A path as Spark means it: this machine's file system, whatever the session's own is; a name is no glob."""
    return path if is_url(path) else "file:" + (_escaped(path) if lexists(path) else path)


def _escaped(path: str) -> str:
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", path)


@contextmanager
def _our_place() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(PLACE, error.problem, error.remedy) from error


@contextmanager
def _spark_place(path: str) -> Iterator[None]:
    try:
        yield
    except PySparkException as error:
        raise unreadable(PLACE, path, error) from None

