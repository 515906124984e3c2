"""Rows of ``given`` become what a model can be asked about, or the reason why not.

Runs on: Spark's Python workers.
Takes:   Arrow batches of ``given_rows.GIVEN_DDL``.
Gives:   ``RecordReader``; the columns of an answer.

Reasons: ``empty``, ``undecodable`` (not UTF-8), ``oversized`` (above ``Contract.max_bytes``), ``malformed`` (not a JSON object
that has the field, or another value than the task takes), ``damaged`` (a compressed document), as prepare has them; a model's
module adds its own.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines.lake.schemas import schema_of_ddl
from pipelines.predict.array_column import ArrayColumn, file_path
from pipelines.predict.contracts import Contract
from pipelines.prepare.compressed import Decompressed, codec_of
from pipelines.prepare.images.image_values import numbers_of
from pipelines.prepare.text.input_records import BYTE_ORDER_MARK, json_record


class GivenRecord(NamedTuple):
    """One row of the input."""

    file: str  # as Spark writes it
    start: int  # of the range that it is in
    id: str
    content: Any  # as the task's ``checked`` gives it
    reason: str | None


def part_schema(contract: Contract) -> pa.Schema:
    """Of a part: the row's id, then the contract's columns."""
    return schema_of_ddl(f"id STRING, {contract.columns}")


class RecordReader:
    """Of one Spark task, which reads its ranges one after the other."""

    def __init__(self, contract: Contract, form: str, apart: ArrayColumn | None = None) -> None:
        """
        Args:
            apart: where the content of rows is, if not in the batches.
        """
        self._contract, self._settings, self._form, self._apart = contract, contract.settings, form, apart
        self._range: tuple[str, int] | None = None
        self._name = ""  # of the range's file
        self._index = 0  # of the next row in it

    def records(self, batch: pa.RecordBatch) -> Iterator[GivenRecord]:
        files, starts, rows, ids, contents, sizes = map(numbers_of, batch.columns)
        if self._apart is not None:
            contents = self._apart.of(zip(files, rows, strict=True))
        for file, start, row, row_id, content, size in zip(files, starts, rows, ids, contents, sizes, strict=True):
            if (file, start) != self._range:
                self._range, self._index = (file, start), 0
                self._name = file_path(file)
            row_id = row_id or self._place(start, row)
            self._index += 1
            yield self._record(GivenRecord(file, start, row_id, content, None), size)

    def _place(self, start: int, row: int | None) -> str:
        """What a row without an id is called: ``file``, ``file:row``, or ``file:start of its range:row in it``."""
        if self._form in ("text", "image"):
            return self._name
        return f"{self._name}:{row}" if row is not None else f"{self._name}:{start}:{self._index}"

    def _record(self, given: GivenRecord, size: int | None) -> GivenRecord:
        limit, content = self._contract.max_bytes, given.content
        if content is None:
            return given._replace(reason="empty" if size is None else "oversized")
        if self._form == "jsonl":
            read = json_record("", self._index - 1 + given.start, content, self._contract.column, limit)
            row_id = _id_in(content, self._settings.id_column) if read.reason is None else None
            return given._replace(id=row_id or given.id, content=read.content, reason=read.reason)
        if self._form == "text":
            if (codec := codec_of(content)) is not None:
                try:
                    content = Decompressed(io.BytesIO(content), codec, len(content)).read(limit + 1)
                except OSError:
                    return given._replace(content=None, reason="damaged")
            content = content.removeprefix(BYTE_ORDER_MARK)
        elif self._form == "lines" and (given.start, self._index) == (0, 1):
            content = content.removeprefix(BYTE_ORDER_MARK)
        return GivenRecord(given.file, given.start, given.id, *self._contract.asked.checked(content, limit))


def _id_in(line: bytes, column: str | None) -> str | None:
    if column is None:
        return None
    value: Any = json.loads(line.removeprefix(BYTE_ORDER_MARK)).get(column)
    return None if value is None else value if isinstance(value, str) else json.dumps(value)
