"""Raw bytes become records: a document's content, or the reason why it is refused.

Runs on: executors and driver (pure functions, standard library only).
Takes:   an open file and a byte range, or one raw record.
Gives:   ``Record``; never an exception for what the bytes hold.

Reasons: ``undecodable`` (not UTF-8), ``empty`` (nothing but white space), ``oversized`` (above
``prepare.max_document_bytes``), ``malformed`` (not the JSON object or column that the recipe names). Packing adds
``duplicate`` and ``unencodable``. A file that cannot be read is no record: it stops prepare (``inputs.as_listed``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol

REASONS = ("duplicate", "empty", "malformed", "oversized", "undecodable", "unencodable")
BLOCK_BYTES = 1024**2
# A JSON line may be longer than the document in it: six bytes for an escaped character, and other fields beside it.
JSON_LINE_FACTOR = 8
LOOK_BACK_BYTES = 64 * 1024  # longer runs of overlapping delimiters are cut where the range begins
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """One input record. ``content`` is UTF-8, or None where ``reason`` says why not."""

    source: str
    position: int  # byte offset in a file (in the content of a compressed one), row index in a Parquet file
    content: bytes | None
    reason: str | None
    detail: str | None
    bytes: int


def text_record(source: str, position: int, raw: bytes, max_bytes: int) -> Record:
    """A document given as raw bytes."""
    if len(raw) > max_bytes:
        return oversized_record(source, position, len(raw), max_bytes)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Record(source, position, None, "undecodable", f"byte {error.start}: {error.reason}", len(raw))
    if not text or text.isspace():
        return Record(source, position, None, "empty", "holds no text", len(raw))
    return Record(source, position, raw, None, None, len(raw))


def oversized_record(source: str, position: int, size: int, max_bytes: int) -> Record:
    return Record(source, position, None, "oversized", f"above prepare.max_document_bytes ({max_bytes})", size)


def json_record(source: str, position: int, line: bytes, column: str, max_bytes: int) -> Record:
    """A document that is a string field of one JSON object on one line."""
    def malformed(detail: str) -> Record:
        return Record(source, position, None, "malformed", detail, len(line))

    if position == 0:
        line = line.removeprefix(BYTE_ORDER_MARK)
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Record(source, position, None, "undecodable", f"byte {error.start}: {error.reason}", len(line))
    if not text.strip():
        return Record(source, position, None, "empty", "blank line", len(line))
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return malformed(f"not JSON: {error}")
    if not isinstance(row, dict):
        return malformed(f"a JSON {type(row).__name__}, not an object")
    if column not in row:
        return malformed(f"no field {column!r}")
    return value_record(source, position, row[column], column, max_bytes)


def value_record(source: str, position: int, value: Any, column: str, max_bytes: int) -> Record:
    """A document that is a value of a named field."""
    if value is None:
        return Record(source, position, None, "empty", f"{column!r} is null", 0)
    if isinstance(value, bytes):
        return text_record(source, position, value, max_bytes)
    if not isinstance(value, str):
        return Record(source, position, None, "malformed", f"{column!r} is a {type(value).__name__}, not a string", 0)
    try:
        return text_record(source, position, value.encode("utf-8"), max_bytes)
    except UnicodeEncodeError as error:  # a lone surrogate, which JSON can spell and UTF-8 cannot
        return Record(source, position, None, "undecodable", f"character {error.start}: {error.reason}", len(value))


def cut(file: BinaryIO, start: int, end: int, delimiter: bytes,
        max_bytes: int) -> Iterator[tuple[int, bytes | None, int]]:
    """The pieces between delimiters that begin in ``[start, end)`` of a file; the range is held in memory.

    Ranges that tile a file give together what ``content.split(delimiter)`` gives, less an empty last piece.

    Yields:
        (byte offset, bytes or None where longer than ``max_bytes``, size in bytes).
    """
    before = max(start - LOOK_BACK_BYTES, 0)
    file.seek(before)
    block = file.read(end - before)
    at = _first_begin(block, start - before, delimiter) if start > 0 else 0
    while before + at < end:
        found_at = block.find(delimiter, at)
        if found_at < 0:
            yield from _last_piece(file, before + at, block[at:], delimiter, max_bytes)
            return
        size = found_at - at
        yield before + at, block[at:found_at] if size <= max_bytes else None, size
        at = found_at + len(delimiter)


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes: ...


def cut_stream(stream: Readable, delimiter: bytes, max_bytes: int) -> Iterator[tuple[int, bytes | None, int]]:
    """The pieces of a stream that cannot be read at a place of its own; like ``cut`` of the whole.

    Memory: one piece of at most ``max_bytes``, and one block.
    """
    offset, dropped, kept, search_from = 0, 0, bytearray(), 0
    while more := stream.read(BLOCK_BYTES):
        kept += more
        begin = 0
        while (found_at := kept.find(delimiter, search_from)) >= 0:
            size = dropped + found_at - begin
            yield offset, bytes(kept[begin:found_at]) if size <= max_bytes else None, size
            offset += size + len(delimiter)
            dropped, begin = 0, found_at + len(delimiter)
            search_from = begin
        del kept[:begin]
        if dropped + len(kept) > max_bytes + len(delimiter):  # too long to keep: only what a delimiter may straddle
            surplus = len(kept) - len(delimiter) + 1
            dropped += surplus
            del kept[:surplus]
        search_from = max(len(kept) - len(delimiter) + 1, 0)
    if size := dropped + len(kept):
        yield offset, bytes(kept) if size <= max_bytes else None, size


def _first_begin(block: bytes, start: int, delimiter: bytes) -> int:
    """Where the first piece that begins at ``start`` or later does; the block's length where none does."""
    at = max(start - len(delimiter), 0)
    while at > 0:  # go back to where no delimiter is cut through: of "\n\n\n" the first two are the delimiter
        straddling = block.find(delimiter, max(at - len(delimiter) + 1, 0), at + len(delimiter) - 1)
        if straddling < 0:
            break
        at = straddling
    while (found_at := block.find(delimiter, at)) >= 0:
        at = found_at + len(delimiter)
        if at >= start:
            return at
    return len(block)


def _last_piece(file: BinaryIO, offset: int, head: bytes, delimiter: bytes,
                max_bytes: int) -> Iterator[tuple[int, bytes | None, int]]:
    """The piece that runs past the end of its range, up to the next delimiter or the end of the file."""
    size, kept, ended = len(head), bytearray(head), False
    while not ended:
        more = file.read(BLOCK_BYTES)
        search_from = max(len(kept) - len(delimiter) + 1, 0)
        kept += more
        found_at = kept.find(delimiter, search_from)
        ended = found_at >= 0
        if ended:
            size += found_at - (len(kept) - len(more))
        elif more:
            size += len(more)
            if size > max_bytes + len(delimiter):  # too long to keep: only what a delimiter may straddle
                del kept[:len(kept) - len(delimiter) + 1]
        else:
            break
    if ended or size > 0:
        yield offset, bytes(kept[:size]) if size <= max_bytes else None, size
