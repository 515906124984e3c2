"""Text and JSON lines, plain or compressed, as records.

Runs on: executors and driver.
Takes:   an open file, or the content of one, and the input that it belongs to.
Gives:   ``Record`` after ``Record``; what a line is, and how long it may be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pipelines.config.datasets import InputSource
from pipelines.prepare.compressed import Decompressed, codec_of_file
from pipelines.prepare.text.input_records import (
    BYTE_ORDER_MARK,
    JSON_LINE_FACTOR,
    Record,
    cut,
    cut_stream,
    json_record,
    oversized_record,
    text_record,
)


def has_lines(source: InputSource) -> bool:
    """Whether its files are cut into records; otherwise each text file is one document."""
    return source.format == "jsonl" or (source.format == "text" and source.delimiter is not None)


def delimiter_of(source: InputSource) -> bytes:
    """What stands between two records of an input that ``has_lines``."""
    return b"\n" if source.format == "jsonl" else (source.delimiter or "\n").encode()


def longest_line_bytes(source: InputSource, limit: int) -> int:
    """How long a record may be as it stands in the file, for documents of at most ``limit`` bytes."""
    return limit * JSON_LINE_FACTOR if source.format == "jsonl" else limit


def line_record(source: InputSource, name: str, position: int, line: bytes, limit: int) -> Record:
    """One record of an input that ``has_lines``."""
    if source.format == "jsonl":
        return json_record(name, position, line, source.column, limit)
    return text_record(name, position, _without_mark(line) if position == 0 else line, limit)


def _without_mark(content: bytes) -> bytes:
    return content.removeprefix(BYTE_ORDER_MARK)


def read_text(file: BinaryIO, start: int, end: int, size_bytes: int, name: str, source: InputSource,
              limit: int) -> Iterator[Record]:
    """The records that begin in ``[start, end)`` of an open file of ``size_bytes``.

    Raises:
        OSError: a compressed file is cut off or damaged.
    """
    codec = codec_of_file(file) if end - start == size_bytes else None
    if not has_lines(source):
        yield _read_whole(file, codec, size_bytes, name, limit)
        return
    delimiter, longest = delimiter_of(source), longest_line_bytes(source, limit)
    cuts = (cut(file, start, end, delimiter, longest) if codec is None
            else cut_stream(Decompressed(file, codec, size_bytes), delimiter, longest))
    for offset, raw, size in cuts:
        if raw is None:
            yield oversized_record(name, offset, size, limit)
        else:
            yield line_record(source, name, offset, raw, limit)


def _read_whole(file: BinaryIO, codec: str | None, size_bytes: int, name: str, limit: int) -> Record:
    if codec is not None:  # of what is too long, the first byte too much is enough to know
        return text_record(name, 0, _without_mark(Decompressed(file, codec, size_bytes).read(limit + 1)), limit)
    if size_bytes > limit:
        return oversized_record(name, 0, size_bytes, limit)
    return text_record(name, 0, _without_mark(file.read(limit + 1)), limit)
