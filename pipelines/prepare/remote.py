"""Inputs at URLs that Spark reads, listed by its own sources.

Runs on: driver.
Takes:   inputs whose path has a scheme (``s3a://``, ``hdfs://``, ...) that Spark reads (``config/input_schemes.py``).
Gives:   what makes their fingerprint; a reader of their files.

Spark's file sources never read hidden names (``input_names.is_hidden``), in any format.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pyspark.errors import PySparkException
from pyspark.sql import DataFrameReader, SparkSession
from pyspark.sql.functions import sum as total_of
from pyspark.sql.functions import xxhash64

from pipelines.config.datasets import InputPath
from pipelines.errors import DataError
from pipelines.prepare.input_files import InputFile
from pipelines.prepare.inputs import spark_reads


class RemoteSummary(NamedTuple):
    """All inputs that Spark reads, together."""

    files: int
    bytes: int
    identity: str  # changes when a file's name, size or modification time does


NO_REMOTE = RemoteSummary(0, 0, "")


class Listing(NamedTuple):
    """All inputs, before any is read."""

    files: tuple[InputFile, ...]  # of inputs that Python reads
    remote: RemoteSummary = NO_REMOTE


Marks = Callable[[int, list[str]], list[str]]


def no_marks(input_index: int, names: list[str]) -> list[str]:
    """Of inputs that have always been read as they are read now."""
    return []


def summarize_remote(spark: SparkSession, inputs: Sequence[InputPath], marks: Marks = no_marks) -> RemoteSummary:
    """Lists the URL inputs.

    Args:
        marks: what else an input's identity depends on, by its index and the names of its files.
    Raises:
        DataError: an input cannot be read or holds no file.
    """
    files, total, identities = 0, 0, []
    for index, source in url_inputs(inputs):
        place = source.place(index)
        try:
            found = file_reader(spark, source).format("binaryFile").load(source.path)
            names = sorted(found.inputFiles())  # with the files of no bytes, which a scan leaves out
            hashes = xxhash64("path", "length", "modificationTime").cast("decimal(38,0)")
            size, identity = found.agg(total_of("length"), total_of(hashes)).first() or (0, 0)
        except PySparkException as error:
            raise unreadable(place, source.path, error) from None
        if not names:
            raise DataError(place, f"{source.path!r} holds no files that Spark reads",
                            "give a file, folder or glob that does (Spark skips names that start with '_' or '.')")
        files, total = files + len(names), total + (size or 0)
        names += marks(index, names)
        identities.append((index, hashlib.sha256("\n".join(names).encode()).hexdigest(), size, str(identity)))
    return RemoteSummary(files, total, repr(identities))


def refuse_changed(spark: SparkSession, inputs: Sequence[InputPath], remote: RemoteSummary, marks: Marks = no_marks) -> None:
    """Lists the URL inputs again, after they were read.

    Raises:
        DataError: the listing is another than before.
    """
    if remote.files and summarize_remote(spark, inputs, marks).identity != remote.identity:
        urls = ", ".join(source.path for _, source in url_inputs(inputs))
        raise DataError("prepare.inputs", f"{urls}: input changed while it was read",
                        "prepare again when nothing writes to the input")


def unreadable(place: str, path: str, error: BaseException) -> DataError:
    """A Spark error while reading, without its Java stack trace."""
    return DataError(place, f"{path!r} cannot be read by Spark: {java_cause(error)}",
                     "check the path, its format, and that this session can reach it")


def java_cause(error: BaseException) -> str:
    """The one line of a Java or Python trace that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    told = [line for line in lines if line.startswith(("Caused by:", "Exception: ")) or "Error: " in line]
    named = [line for line in lines if "while reading file" in line]
    return (named or told[::-1] or lines or [type(error).__name__])[0][:400]


def url_inputs(inputs: Sequence[InputPath]) -> list[tuple[int, InputPath]]:
    """Each with its index."""
    return [(index, source) for index, source in enumerate(inputs) if spark_reads(source.path)]


def file_reader(spark: SparkSession, source: InputPath) -> DataFrameReader:
    """Of the files that an input names."""
    reader = spark.read.option("recursiveFileLookup", "true")
    return reader.option("pathGlobFilter", source.pattern) if source.pattern else reader


def without_host(url: str) -> str:
    """The path in a URL, which Spark writes as ``file:/a`` here and ``file:///a`` there."""
    return re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?", "", url)
