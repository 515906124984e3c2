"""Records become rows of the DataFrame ``documents``.

Runs on: executors.
Takes:   the records that one Spark task reads.
Gives:   Arrow batches of ``DOCUMENT_DDL``, bounded in bytes and rows.

All copies of a document have one key, so one Spark task gets them all. Of a document that is everywhere (a licence, an
error page) that would be gigabytes: the task that reads copies sends its first one whole, and of the others only where they
are. "First" is in the order in which a partition is sorted (source as UTF-8, then position), so the first copy of all has
its content, whatever tasks there were, and what becomes of the copies does not depend on the cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from pipelines.prepare.text.input_records import Record

BATCH_BYTES, BATCH_ROWS = 8 * 1024**2, 4096
FAULT = "fault"  # a row that stops the job: its detail is "place\tproblem"
COPY = "copy"  # a row without content: that of another row with its key
MIN_COPY_BYTES = 256  # the place of a shorter document is not shorter than the document
REMEMBERED_KEYS = 64 * 1024  # by a task, the newest ones: about 16 MB

DOCUMENT_DDL = "key BINARY, source STRING, position BIGINT, content BINARY, reason STRING, detail STRING, bytes BIGINT"
DOCUMENT_SCHEMA = pa.schema([("key", pa.binary()), ("source", pa.string()), ("position", pa.int64()),
                             ("content", pa.binary()), ("reason", pa.string()), ("detail", pa.string()),
                             ("bytes", pa.int64())])


def fault_record(place: str, problem: str) -> Record:
    """The row that stops prepare with a ``DataError``."""
    return Record("", 0, None, FAULT, f"{place}\t{problem}", 0)


def record_batches(records: Iterator[Record], *, deduplicate: bool) -> Iterator[pa.RecordBatch]:
    """Rows of ``documents``; with ``deduplicate``, copies of what this task has read before are sent without content."""
    copies = Copies()
    waiting: list[Record] = []
    keys: list[bytes] = []
    waiting_bytes = 0
    for read in records:
        key = _key(read)
        record = copies.without_content(key, read) if deduplicate else read
        waiting.append(record)
        keys.append(key)
        waiting_bytes += len(record.content or b"")
        if waiting_bytes >= BATCH_BYTES or len(waiting) >= BATCH_ROWS:
            yield _batch(keys, waiting)
            waiting, keys, waiting_bytes = [], [], 0
    if waiting:
        yield _batch(keys, waiting)


class RecordPlace(NamedTuple):
    """Of a record, in the order in which Spark sorts them."""

    source: bytes
    position: int


class Copies:
    """The documents that a task has read, newest last, and the first place of each."""

    def __init__(self) -> None:
        self._first_places: dict[bytes, RecordPlace] = {}

    def without_content(self, key: bytes, record: Record) -> Record:
        """The record, less its content where an earlier place has sent it."""
        if record.content is None or len(record.content) < MIN_COPY_BYTES:
            return record
        place = RecordPlace(record.source.encode(), record.position)
        first = self._first_places.pop(key, None)
        self._first_places[key] = place if first is None else min(first, place)
        if first is not None and first < place:
            return record._replace(content=None, reason=COPY)
        if len(self._first_places) > REMEMBERED_KEYS:
            del self._first_places[next(iter(self._first_places))]
        return record


def _batch(keys: list[bytes], records: list[Record]) -> pa.RecordBatch:
    columns = [keys, *zip(*records, strict=True)]
    return pa.RecordBatch.from_arrays(
        [pa.array(values, type=field.type) for values, field in zip(columns, DOCUMENT_SCHEMA, strict=True)],
        schema=DOCUMENT_SCHEMA)


def _key(record: Record) -> bytes:
    """SHA-256 of the content; of the place where there is none."""
    return hashlib.sha256(record.content if record.content is not None
                          else f"{record.source}\0{record.position}".encode()).digest()
