"""Files at URLs, opened and copied by the session's JVM, which has the file systems.

Runs on: driver.
Takes:   the session, a URL as Spark writes it.
Gives:   ``copy_file``, ``file_head``; Java's ``Path`` and ``FileSystem`` of a URL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from pipelines.errors import StorageError
from pipelines.prepare.remote import unreadable


def copy_file(spark: SparkSession, url: str, copy: Path, place: str) -> None:
    """Copies the file to a local path that every machine sees.

    Args:
        place: of its input in the recipe.
    Raises:
        DataError: it cannot be read. StorageError: there is no room.
    """
    try:
        path, target = java_path(spark, url), java_path(spark, copy.as_uri())
        java_file_system(spark, path).copyToLocalFile(False, path, target, True)  # True: no checksum file beside it
    except Py4JJavaError as error:
        if "No space left on device" in str(error):
            raise StorageError(str(copy.parent), "is full", "free space, or set storage.root to another folder") from None
        raise unreadable(place, url, error) from None


def file_head(spark: SparkSession, url: str, size: int, place: str) -> bytes:
    """The first bytes of a file; fewer where it has no more.

    Args:
        place: of its input in the recipe.
    Raises:
        DataError: it cannot be read.
    """
    try:
        path = java_path(spark, url)
        stream = java_file_system(spark, path).open(path)
        try:
            return bytes(stream.readNBytes(size))
        finally:
            stream.close()
    except Py4JJavaError as error:
        raise unreadable(place, url, error) from None


def java_classes(spark: SparkSession) -> Any:
    """The classes of the session's JVM, by their names."""
    return spark._jvm


def java_path(spark: SparkSession, url: str) -> Any:
    """Java's ``Path``; given as a string, it would not read percent signs."""
    java = java_classes(spark)
    return java.org.apache.hadoop.fs.Path(java.java.net.URI.create(url))


def java_file_system(spark: SparkSession, path: Any) -> Any:
    """Java's ``FileSystem`` that the path is on."""
    return path.getFileSystem(spark._jsc.hadoopConfiguration())
