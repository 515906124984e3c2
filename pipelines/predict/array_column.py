"""A column of arrays of numbers in local Parquet files, read by the worker itself.

Runs on: Spark's Python workers.
Takes:   rows, by their file and their number in it, mostly one behind the other.
Gives:   ``ArrayColumn``: their values.

On its way to Python Spark copies an array value by value, several times: some 50 microseconds for the 784 pixels of a digit,
more than a small model needs for it. Arrow reads them as one piece.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.prepare.images.image_values import numbers_of

READ_ROWS = 256  # at once


def file_path(name: str) -> str:
    """A local file's, of its name as Spark writes it."""
    return re.sub("^file:(//)?/", "/", unquote(name))


class ArrayColumn:
    """Of one Spark task."""

    def __init__(self, place: str, name: str) -> None:
        """
        Args:
            place: of the input, for errors.
        """
        self._place, self._name = place, name
        self._path, self._next = "", 0
        self._values: Iterator[Any] = iter(())  # of the file's rows from ``_next`` on

    def of(self, files_and_rows: Iterable[tuple[str, int]]) -> list[Any]:
        """The value of each row, None where it has none.

        Raises:
            DataError: a file cannot be read, or has fewer rows by now.
        """
        found: list[Any] = []
        for file, rows in groupby(files_and_rows, itemgetter(0)):
            path = file_path(file)
            try:
                found += [self._value(path, row) for _, row in rows]
            except (OSError, pa.ArrowException, StopIteration) as error:
                raise DataError(self._place, f"{path} cannot be read ({error or 'it has become shorter'})",
                                "give another --output when nothing writes to the input") from error
        return found

    def _value(self, path: str, row: int) -> Any:
        if (path, row) != (self._path, self._next):
            self._path, self._values = path, self._from(path, row)
        self._next = row + 1
        return next(self._values)

    def _from(self, path: str, row: int) -> Iterator[Any]:
        """The values of a file from a row on; of the row groups before, nothing is read."""
        with pq.ParquetFile(path) as parquet:
            metadata = parquet.metadata
            ends = list(accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
            group = bisect_right(ends, row)
            left_out = row - (ends[group - 1] if group else 0)
            if self._name not in parquet.schema_arrow.names:  # as Spark has it, where another file has the column
                yield from [None] * (metadata.num_rows - row)
                return
            for batch in parquet.iter_batches(READ_ROWS, row_groups=range(group, len(ends)), columns=[self._name]):
                if left_out < len(batch):
                    yield from numbers_of(batch.column(0)[left_out:])
                left_out = max(0, left_out - len(batch))
