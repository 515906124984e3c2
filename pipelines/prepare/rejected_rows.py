"""The records that prepare refused, written by the Spark task that refused them.

Runs on: executors.
Takes:   where a record was, why it was refused, and its size.
Gives:   a part of the table ``rejected``, which the driver publishes (``publish.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.schemas import arrow_schema

REJECTED_SCHEMA = arrow_schema("rejected")
REJECTED_ROWS = 8192  # held in memory before they are written
COMPRESSION = "zstd"
REJECTED_NAME = "rejected.parquet"


class RejectedWriter:
    """Writes the refused records of a partition; makes no file where there are none."""

    def __init__(self, dataset_name: str, dataset_version: str, path: Path) -> None:
        self._dataset, self._path = (dataset_name, dataset_version), path
        self._rows: list[tuple[Any, ...]] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, source: str, position: int, reason: str | None, detail: str | None, size: int) -> None:
        self._rows.append((*self._dataset, source, position, reason, detail, size))
        if len(self._rows) >= REJECTED_ROWS:
            self._flush()

    def close(self) -> bool:
        """Whether there is a file."""
        if self._rows:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        return self._writer is not None

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, REJECTED_SCHEMA, compression=COMPRESSION)
        columns = zip(*self._rows, strict=True)
        self._writer.write_table(pa.Table.from_arrays(
            [pa.array(values, type=field.type) for values, field in zip(columns, REJECTED_SCHEMA, strict=True)],
            schema=REJECTED_SCHEMA))
        self._rows = []
