"""Files that Python reads become rows of ``images``, read and decoded in parallel.

Runs on: driver (hands out pieces), executors (read them).
Takes:   pieces of files.
Gives:   DataFrame ``images`` (``IMAGE_DDL``): one row per image, refused ones too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from pipelines.errors import DataError
from pipelines.lake.staging import Staging
from pipelines.prepare.images.decoding import LOOKED_AT, FoundShape, MixedImagesError, found_shape
from pipelines.prepare.images.idx_files import IdxError, idx_content, idx_images, read_header
from pipelines.prepare.images.image_piece import ImagePiece
from pipelines.prepare.images.image_records import IMAGE_DDL, Found, ImageRecord, ImageRecords, fault, image_batches
from pipelines.prepare.images.image_values import KNOWN_CODECS, UnknownCodecError, size_of, value_shape
from pipelines.prepare.input_files import InputFile, as_listed, opened_input, parquet_file
from pipelines.prepare.piece_groups import group_of, put_groups
from pipelines.prepare.workers import lighten_worker

MIN_TASK_BYTES, MAX_TASK_BYTES, MIN_TASKS = 256 * 1024, 64 * 1024**2, 8
IMAGE_COST_BYTES = 4096  # opening and decoding an image costs about as much as reading this
TABLES = ("table", "petastorm")  # formats
BATCH_ROWS = 64
UNREADABLE = "restore it or move it out of the input"


def local_images(spark: SparkSession, pieces: list[ImagePiece], records: ImageRecords, staging: Staging) -> DataFrame:
    """``images`` of pieces; the tasks grow with their bytes, and find their pieces in ``staging``."""
    groups = group_images(pieces)
    put_groups(staging.files, groups)

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from image_batches(record for batch in batches for index in batch.column(0).to_pylist()
                                 for record in _records_or_fault(group_of(staging.files, index), records))
        lighten_worker()

    return spark.range(0, len(groups), 1, len(groups)).mapInArrow(read, IMAGE_DDL)


def local_shapes(pieces: list[ImagePiece], max_pixels: int, max_bytes: int) -> Iterator[FoundShape]:
    """The shapes of the first images of each piece; files that are too large are not looked into."""
    for piece in pieces:
        if piece.format == "folder" and piece.file.bytes > max_bytes:
            continue
        with as_listed(piece.file):
            if piece.format in TABLES:
                yield from (value_shape(piece.source, value, max_pixels) for value in islice(_values(piece), LOOKED_AT))
                continue
            with opened_input(piece.file) as stream:
                if piece.format == "idx":
                    yield FoundShape(piece.source, read_header(idx_content(stream, piece.file.bytes)).image_shape, "")
                else:
                    yield found_shape(piece.source, stream.read(), max_pixels)


def group_images(pieces: list[ImagePiece]) -> list[list[ImagePiece]]:
    """Neighbouring pieces read by one task: even in bytes, and at least ``MIN_TASKS`` where there is enough to read."""
    def cost(piece: ImagePiece) -> int:
        return piece.bytes + piece.rows * IMAGE_COST_BYTES

    target = min(max(sum(map(cost, pieces)) // MIN_TASKS, MIN_TASK_BYTES), MAX_TASK_BYTES)
    groups: list[list[ImagePiece]] = [[]]
    filled = 0
    for piece in pieces:
        if filled >= target:
            groups.append([])
            filled = 0
        groups[-1].append(piece)
        filled += cost(piece)
    return groups


def _records_or_fault(pieces: Iterable[list[Any]], records: ImageRecords) -> Iterator[ImageRecord]:
    """An exception would reach the driver as a Java trace, after retries."""
    for content in pieces:
        piece = ImagePiece(InputFile(*content[0]), *content[1:])
        try:
            yield from read_images(piece, records)
        except DataError as error:
            yield fault(error.place, error.problem, UNREADABLE)
        except IdxError as error:
            yield fault(piece.file.place, f"{piece.source} {error}", UNREADABLE)
        except MixedImagesError as error:
            yield fault("prepare.inputs", error.problem, error.remedy)
        except UnknownCodecError as error:
            yield fault(piece.file.place, f"{piece.source} holds in column {piece.column!r} {error}", KNOWN_CODECS)


def read_images(piece: ImagePiece, records: ImageRecords) -> Iterator[ImageRecord]:
    """The records of one piece.

    Raises:
        DataError: the file cannot be read, or is not the one that was listed.
        IdxError: it is not what its header says. MixedImagesError: see ``decoding.fitted``. UnknownCodecError: a value of a
            petastorm dataset is of none that is read.
    """
    with as_listed(piece.file):
        if piece.format == "idx":
            yield from _read_idx(piece, records)
        elif piece.format in TABLES:
            yield from _read_row_group(piece, records)
        else:
            found = Found(piece.source, 0, piece.labels[0], piece.split(0), piece.file.bytes)
            refusal = records.refusal(found)
            if refusal is not None:
                yield refusal
                return
            with opened_input(piece.file) as stream:
                yield records.of_file(found, stream.read())


def _values(piece: ImagePiece) -> Iterator[Any]:
    """The column of images in a row group."""
    with parquet_file(piece.file) as parquet:
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, row_groups=[piece.row_group], columns=[piece.column]):
            yield from batch.column(0).to_pylist()


def _read_row_group(piece: ImagePiece, records: ImageRecords) -> Iterator[ImageRecord]:
    for row, value in enumerate(_values(piece)):
        found = Found(piece.source, piece.first + row, piece.labels[row], piece.split(row), size_of(value))
        yield records.of_value(found, value, strict=piece.format == "petastorm")


def _read_idx(piece: ImagePiece, records: ImageRecords) -> Iterator[ImageRecord]:
    with opened_input(piece.file) as stream:
        content = idx_content(stream, piece.file.bytes)
        header = read_header(content)
        if piece.first:  # never of an archive
            stream.seek(header.header_bytes + piece.first * header.row_bytes)
        as_wanted = header.image_shape == records.rule.shape and header.image_shape.channels == 1 and not records.as_files
        for row, values in enumerate(idx_images(content, header, piece.first, piece.rows)):
            found = Found(piece.source, piece.first + row, piece.labels[row], piece.split(row), header.row_bytes)
            refusal = records.refusal(found)
            if refusal is not None:
                yield refusal
            elif as_wanted:
                yield records.of_pixels(found, values)
            else:
                yield records.of_values(found, header.values_of(values))
