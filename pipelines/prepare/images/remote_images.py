"""Images at URLs, read by Spark's own sources.

Runs on: driver; executors through Spark.
Takes:   inputs whose path has a scheme (``s3a://``, ``hdfs://``, ...) that Spark reads (``config/input_schemes.py``).
Gives:   ``remote_files``, ``remote_input``: what was found; ``remote_images``: ``images`` as ``local_images.local_images`` gives
         them; ``copied``.

IDX files and tables of labels, of which there are few, are copied beside the dataset in the making and are read as local ones.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from posixpath import basename, commonpath, dirname, relpath
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import col

from pipelines.config.datasets import ImageInput, ImagePrepare, InputPath
from pipelines.lake.manifest import SPLITS
from pipelines.lake.staging import Staging
from pipelines.prepare.images.decoding import LOOKED_AT, FoundShape, MixedImagesError, found_shape
from pipelines.prepare.images.image_names import ImageNames
from pipelines.prepare.images.image_pieces import FILES_LOOKED_AT, format_of_content
from pipelines.prepare.images.image_records import IMAGE_DDL, Found, ImageRecord, ImageRecords, fault, image_batches
from pipelines.prepare.images.table_pieces import PETASTORM_METADATA
from pipelines.prepare.input_files import InputFile, local_file
from pipelines.prepare.remote import file_reader, unreadable, without_host
from pipelines.prepare.url_files import copy_file, file_head, java_file_system, java_path

COPIES = "copies"  # a folder in staging
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
HEAD_BYTES = 4096  # of a file, to recognise its format
_GLOB = re.compile(r"[*?\[{]")


class RemoteFile(NamedTuple):
    url: str  # as Spark's binaryFile gives it
    name: str  # relative to the input
    bytes: int


class RemoteFiles(NamedTuple):
    """The files of one input."""

    base: str  # what their names are relative to
    files: tuple[RemoteFile, ...]


class RemoteImages(NamedTuple):
    """The image files of one input, each with what its name says."""

    input_index: int
    base: str
    names: ImageNames
    found: tuple[Found, ...]

    def class_labels(self) -> set[str]:
        """Those of images that are of a split."""
        return {image.label for image in self.found if image.label is not None and image.split in (None, *SPLITS)}


def remote_files(spark: SparkSession, source: InputPath, place: str) -> RemoteFiles:
    """
    Raises:
        DataError: the input cannot be read.
    """
    try:
        files = file_reader(spark, source).format("binaryFile").load(source.path)
        sizes = {row.path: row.length for row in files.select("path", "length").toLocalIterator()}
        read = {without_host(path) for path in sizes}
        for name in files.inputFiles():  # a scan leaves out files of no bytes
            if unquote(without_host(name)) not in read:
                sizes[unquote(name)] = 0
    except PySparkException as error:
        raise unreadable(place, source.path, error) from None
    base = _base(source.path, [without_host(path) for path in sizes])
    return RemoteFiles(base, tuple(RemoteFile(path, _name(path, base), size) for path, size in sorted(sizes.items())))


def _base(url: str, paths: list[str]) -> str:
    named = without_host(url).rstrip("/") or "/"
    if _GLOB.search(named) and named not in paths:
        return commonpath([dirname(path) for path in paths])
    return dirname(named) if named in paths else named


def _name(path: str, base: str) -> str:
    return relpath(without_host(path), base)


def format_of_remote(spark: SparkSession, source: ImageInput, files: RemoteFiles, place: str) -> str:
    """As the recipe says, or as the first files begin; what is called an image is not looked into."""
    if source.format != "auto" or source.labels is not None:
        return "folder" if source.format == "auto" else source.format
    for file in (file for file in files.files[:FILES_LOOKED_AT] if not file.name.lower().endswith(IMAGE_ENDINGS)):
        found = format_of_content(io.BytesIO(file_head(spark, quote(file.url, safe="/:"), HEAD_BYTES, place)), file.bytes)
        if found == "table":
            beside = java_path(spark, f"{dirname(quote(file.url, safe='/:'))}/{PETASTORM_METADATA}")
            return "petastorm" if java_file_system(spark, beside).exists(beside) else "table"
        if found is not None:
            return found
    return "folder"


def remote_input(index: int, files: RemoteFiles, names: ImageNames) -> RemoteImages:
    """Image files, with what their names say."""
    return RemoteImages(index, files.base, names, tuple(_found(file.url, file.name, file.bytes, names) for file in files.files))


def _found(url: str, name: str, size: int, names: ImageNames) -> Found:
    said = names.of(name)
    return Found(url, 0, said.label, said.split, size)


def copied(spark: SparkSession, files: RemoteFiles, index: int, place: str, staging: Staging) -> list[InputFile]:
    """Local copies of an input's files, named as they are.

    Args:
        index, place: of the input in the recipe.
    Raises:
        DataError: a file cannot be read. StorageError: there is no room.
    """
    copies = []
    for number, file in enumerate(files.files):
        folder = staging.shared_folder(f"{COPIES}/{index}-{number}", f"for a copy of {file.url}, which Spark does not read")
        copy = folder / basename(file.name)
        copy_file(spark, quote(file.url, safe="/:"), copy, place)
        copies.append(local_file(index, str(copy), file.name, copy.stat()))
    return copies


def remote_shapes(spark: SparkSession, images: RemoteImages, prepare: ImagePrepare) -> Iterator[FoundShape]:
    """The shapes of some of an input's images."""
    source = prepare.inputs[images.input_index]
    files = file_reader(spark, source).format("binaryFile").load(source.path)
    readable = files.where(col("length").between(1, prepare.max_image_bytes)).select("path", "content")
    for path, content in readable.limit(LOOKED_AT).toLocalIterator():
        yield found_shape(path, bytes(content), prepare.max_image_pixels)


def remote_images(spark: SparkSession, images: RemoteImages, prepare: ImagePrepare, records: ImageRecords) -> DataFrame:
    """``images`` of an input's image files."""
    source, limit = prepare.inputs[images.input_index], prepare.max_image_bytes
    files = file_reader(spark, source).format("binaryFile").load(source.path)
    rows = files.where(col("length").between(1, limit)).select("path", "length", "content")
    unread = [(found.source, found.bytes, None) for found in images.found if not 0 < found.bytes <= limit]
    if unread:
        rows = rows.union(spark.createDataFrame(unread, rows.schema))

    base, names = images.base, images.names

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from image_batches(_record(row, base, names, records) for batch in batches for row in zip(
            *(column.to_pylist() for column in batch.columns), strict=True))

    return rows.mapInArrow(read, IMAGE_DDL)


def _record(row: tuple[Any, ...], base: str, names: ImageNames, records: ImageRecords) -> ImageRecord:
    path, size, content = row
    found = _found(path, _name(path, base), size, names)
    refusal = records.refusal(found)
    if refusal is not None:
        return refusal
    if len(content) != size:
        return fault("prepare.inputs", f"{path}: input changed while it was read",
                     "prepare again when nothing writes to the input")
    try:
        return records.of_file(found, content)
    except MixedImagesError as error:
        return fault("prepare.inputs", error.problem, error.remedy)
