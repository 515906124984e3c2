"""Input files become rows of ``documents``, read in parallel.

Runs on: driver (cuts files into pieces), executors (read them).
Takes:   the listed files, on a disk or at URLs that Python reads.
Gives:   DataFrame ``documents`` (``DOCUMENT_DDL``): one row per input record, refused ones too.

A piece is a whole text file, a byte range of a file that is cut at a delimiter, or a row group of a Parquet file.
Compressed text is read as its content; a file of it is one piece, because it cannot be read from its middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from pipelines.config.datasets import InputSource, TextPrepare
from pipelines.errors import DataError
from pipelines.lake.staging import Staging
from pipelines.prepare.compressed import ENDINGS, HEAD_BYTES, USUAL_RATIO, codec_of_file
from pipelines.prepare.input_files import (
    AHEAD_BYTES,
    RANGE_AHEAD_BYTES,
    InputFile,
    as_listed,
    opened_input,
    parquet_file,
    path_text,
)
from pipelines.prepare.piece_groups import group_of, put_groups
from pipelines.prepare.text.documents import DOCUMENT_DDL, fault_record, record_batches
from pipelines.prepare.text.input_records import Record, value_record
from pipelines.prepare.text.lines import has_lines, read_text
from pipelines.prepare.threads import in_threads
from pipelines.prepare.workers import lighten_worker

PIECE_BYTES = 8 * 1024**2
MIN_TASK_BYTES, MAX_TASK_BYTES, MIN_TASKS = 1024**2, 64 * 1024**2, 8
FILE_COST_BYTES = 4096  # opening a file costs about as much as reading this


class Piece(NamedTuple):
    """What one reader reads at once."""

    file: InputFile
    source: str  # what its records, and errors, call it
    start: int  # byte offset, or first row of a row group
    end: int  # byte offset, or index of a row group
    bytes: int


def cut_into_pieces(files: list[InputFile], inputs: tuple[InputSource, ...]) -> list[Piece]:
    """All pieces of all files, in order.

    Raises:
        DataError: a Parquet file is not one, or lacks the column.
    """
    def pieces_of(file: InputFile) -> list[Piece]:
        return list(_pieces_of(file, inputs[file.input_index]))

    return list(chain.from_iterable(in_threads(pieces_of, files)))  # some are opened


def _pieces_of(file: InputFile, source: InputSource) -> Iterator[Piece]:
    if source.format == "parquet":
        yield from _row_groups(file, source.column)
    elif file.bytes <= PIECE_BYTES or not has_lines(source) or _is_compressed(file):
        likely = USUAL_RATIO if file.name.endswith(ENDINGS) else 1
        yield _piece(file, 0, file.bytes, file.bytes * likely)
    else:
        for start in range(0, file.bytes, PIECE_BYTES):
            end = min(start + PIECE_BYTES, file.bytes)
            yield _piece(file, start, end, end - start)


def _is_compressed(file: InputFile) -> bool:
    with as_listed(file), opened_input(file, HEAD_BYTES) as stream:
        return codec_of_file(stream) is not None


def _piece(file: InputFile, start: int, end: int, size_bytes: int) -> Piece:
    return Piece(file, path_text(file.path), start, end, size_bytes)


def _row_groups(file: InputFile, column: str) -> Iterator[Piece]:
    with as_listed(file), parquet_file(file) as parquet:
        names, metadata = parquet.schema_arrow.names, parquet.metadata
        if column not in names:
            raise DataError(f"prepare.inputs.{file.input_index}.column",
                            f"{file.path} has no column {column!r}; it has {', '.join(names)}",
                            "name one of them, or move the file out of the input")
        if names.count(column) > 1:
            raise DataError(f"prepare.inputs.{file.input_index}.column",
                            f"{file.path} has {names.count(column)} columns {column!r}", "rename all but one")
        kind = parquet.schema_arrow.field(column).type
        if not _holds_text(kind):
            raise DataError(f"prepare.inputs.{file.input_index}.column",
                            f"{column!r} of {file.path} is {kind}, not text", "name a column of strings")
        leaf = [parquet.schema.column(leaf).path for leaf in range(len(parquet.schema))].index(column)
    first_row = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        size = group.column(leaf).total_uncompressed_size
        yield _piece(file, first_row, index, size)
        first_row += group.num_rows


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
                                       pa.types.is_large_binary, pa.types.is_null))


def read_piece(piece: Piece, prepare: TextPrepare) -> Iterator[Record]:
    """The records of one piece.

    Raises:
        DataError: the file cannot be read, or is not the one that was listed.
    """
    file = piece.file
    source, limit = prepare.inputs[file.input_index], prepare.max_document_bytes
    with as_listed(file):
        if source.format == "parquet":
            yield from _read_row_group(piece, source.column, limit)
        else:
            whole = piece.end - piece.start == file.bytes
            with opened_input(file, AHEAD_BYTES if whole else RANGE_AHEAD_BYTES) as stream:
                yield from read_text(stream, piece.start, piece.end, file.bytes, piece.source, source, limit)


def _read_row_group(piece: Piece, column: str, limit: int) -> Iterator[Record]:
    row = piece.start
    with parquet_file(piece.file) as parquet:
        for batch in parquet.iter_batches(batch_size=1024, row_groups=[piece.end], columns=[column]):
            for value in batch.column(0).to_pylist():
                yield value_record(piece.source, row, value, column, limit)
                row += 1


def local_documents(spark: SparkSession, pieces: list[Piece], prepare: TextPrepare, staging: Staging) -> DataFrame:
    """``documents`` of the files that Python reads; the tasks grow with their bytes, and find their pieces in ``staging``."""
    groups = group_pieces(pieces)
    put_groups(staging.files, groups)

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        records = (record for batch in batches for index in batch.column(0).to_pylist()
                   for record in _records_or_fault(group_of(staging.files, index), prepare))
        yield from record_batches(records, deduplicate=prepare.deduplicate)
        lighten_worker()

    return spark.range(0, len(groups), 1, len(groups)).mapInArrow(read, DOCUMENT_DDL)


def _records_or_fault(pieces: Iterable[list[Any]], prepare: TextPrepare) -> Iterator[Record]:
    try:
        for piece in pieces:
            yield from read_piece(Piece(InputFile(*piece[0]), *piece[1:]), prepare)
    except DataError as error:  # an exception would reach the driver as a Java trace, after retries
        yield fault_record(error.place, error.problem)


def group_pieces(pieces: list[Piece]) -> list[list[Piece]]:
    """Neighbouring pieces read by one task: even in bytes, and at least ``MIN_TASKS`` where there is enough to read."""
    total = sum(piece.bytes + FILE_COST_BYTES for piece in pieces)
    target = min(max(total // MIN_TASKS, MIN_TASK_BYTES), MAX_TASK_BYTES)
    groups: list[list[Piece]] = [[]]
    filled = 0
    for piece in pieces:
        if filled >= target:
            groups.append([])
            filled = 0
        groups[-1].append(piece)
        filled += piece.bytes + FILE_COST_BYTES
    return groups
