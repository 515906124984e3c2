"""The shards of a split, each checked against the manifest before its first row is used.

Runs on: ranks, in the read-ahead thread.
Takes:   a dataset's store, the manifest's shards of one split and the columns of a row.
Gives:   the keys of checked shards; the rows of a row group as arrays. What is missing, cut short, changed or of
         another schema is a ``DataError`` that names the file and the remedy.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.errors import DataError, RankFailedError, ResourceError, SparkringError
from pipelines.feed.image_files import ImageFileError, decoded_column
from pipelines.lake.manifest import Shard, row_group_runs
from pipelines.lake.store import Store
from pipelines.lake.task_facts import IMAGE_FILE, VALUE_BYTES, Column, shard_schema

REMEDY = "restore the file, or delete the dataset version and prepare again"
NO_SAMPLE = -1


class RowGroup(NamedTuple):
    """A row group by its shard's place in the split and its own place in the shard."""

    shard_index: int
    row_group_index: int


@dataclass(frozen=True)
class Rows:
    """Rows of a split, column by column. As read, they share memory with Arrow: copy before writing."""

    columns: dict[str, NDArray[Any]]  # by name: [B, *the column's shape]
    sample_ids_B: NDArray[np.int64]  # the row's number in the split, in file order; NO_SAMPLE for padding

    def __len__(self) -> int:
        return len(self.sample_ids_B)

    def __getitem__(self, at: slice | NDArray[np.int64]) -> Rows:
        return Rows({name: values[at] for name, values in self.columns.items()}, self.sample_ids_B[at])

    @staticmethod
    def joined(parts: list[Rows]) -> Rows:
        """A copy of the parts, one after the other; at least one."""
        return Rows({name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
                    np.concatenate([part.sample_ids_B for part in parts]))


class ShardFiles:
    """The shard files of one split."""

    def __init__(self, dataset: Store, shards: tuple[Shard, ...], columns: tuple[Column, ...]) -> None:
        self.dataset, self.columns = dataset, columns
        self._shards = shards
        self._first_row_groups_S = np.cumsum([0, *(shard.num_row_groups for shard in shards)])
        runs = [run for shard in shards for run in shard.row_groups]
        self._run_rows_U = np.array([run.rows for run in runs], dtype=np.int64)
        self._run_lengths_U = np.array([run.length for run in runs], dtype=np.int64)
        self._run_first_groups_U = np.cumsum(self._run_lengths_U) - self._run_lengths_U
        self._run_first_ids_U = np.cumsum(self._run_lengths_U * self._run_rows_U) - self._run_lengths_U * self._run_rows_U
        row_number = np.arange(max(self._run_rows_U, default=0) + 1)
        self._even_offsets = {column.name: row_number * column.values for column in columns if column.shape}

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def num_row_groups(self) -> int:
        return int(self._first_row_groups_S[-1])

    def row_group_rows(self) -> NDArray[np.int32]:
        """The rows of each row group of the split, in file order: made anew, since ranks need them once."""
        return np.repeat(self._run_rows_U.astype(np.int32), self._run_lengths_U)

    def row_group(self, number: int) -> RowGroup:
        """Where row group ``number`` of the split is."""
        shard_index = int(np.searchsorted(self._first_row_groups_S, number, side="right")) - 1
        return RowGroup(shard_index, number - int(self._first_row_groups_S[shard_index]))

    def sample_ids(self, number: int) -> range:
        """The samples of row group ``number`` of the split."""
        run = int(np.searchsorted(self._run_first_groups_U, number, side="right")) - 1
        rows = int(self._run_rows_U[run])
        first = int(self._run_first_ids_U[run]) + (number - int(self._run_first_groups_U[run])) * rows
        return range(first, first + rows)

    def place(self, shard_index: int) -> str:
        """The shard, as people name it."""
        return self.dataset.place(self._shards[shard_index].path)

    def checked(self, shard_index: int) -> str:
        """The shard's key in the dataset, once its size, checksum, schema and row groups are what the manifest says.

        Raises:
            DataError: they are not.
        """
        shard, place = self._shards[shard_index], self.place(shard_index)
        with reading_errors(place):
            facts = self.dataset.facts(shard.path)
        if facts is None:
            raise DataError(place, "is missing", REMEDY)
        if (place, facts.version) not in _checked:
            _check_shard(self.dataset, shard, self.columns, facts.bytes)
            _checked.add((place, facts.version))
        return shard.path

    def rows_of(self, number: int, table: pa.Table) -> Rows:
        """The rows of the split's row group ``number``, which was read into ``table``; lists are not copied.

        Raises:
            DataError: a row has not as many values as its column's shape says, or one that is not allowed.
        """
        sample_ids = self.sample_ids(number)
        return Rows({column.name: self._values(number, column, _one_chunk(table.column(column.name)), len(sample_ids))
                     for column in self.columns}, np.arange(sample_ids.start, sample_ids.stop))

    def _values(self, number: int, column: Column, found: pa.Array, rows: int) -> NDArray[Any]:
        whole = len(found) == rows and not found.null_count
        if column.encoding == IMAGE_FILE and whole:
            try:
                return decoded_column(column, found)
            except ImageFileError as error:
                raise self._fault(number, f"holds in column {column.name} what is no image of it: {error}") from None
        if column.shape and column.encoding is None:
            offsets_R = self._even_offsets[column.name][: rows + 1]
            whole = whole and not found.values.null_count and bool((found.offsets.to_numpy() == offsets_R).all())
        if not whole:
            raise self._fault(number, f"is not {rows} rows of {column.values} values in column {column.name}")
        if column.encoding == VALUE_BYTES:
            values = np.frombuffer(found.buffers()[1], column.dtype, rows * column.values, found.offset * column.row_bytes)
        else:
            values = found.values.to_numpy() if column.shape else found.to_numpy()
        values = values.reshape(rows, *column.shape)
        if column.allowed is not None and (values.min() < column.allowed[0] or values.max() > column.allowed[1]):
            raise self._fault(number, f"has a {column.name} outside {column.allowed[0]}..{column.allowed[1]}")
        return values

    def _fault(self, number: int, problem: str) -> DataError:
        shard_index, row_group_index = self.row_group(number)
        return DataError(self.place(shard_index), f"row group {row_group_index} {problem}", REMEDY)


@contextmanager
def reading_errors(place: str) -> Iterator[None]:
    """Turns what pyarrow and the operating system raise while a shard is read into a DataError."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(place, "is missing", REMEDY) from error
    except MemoryError:  # Arrow's is an ArrowException too, and no fault of the file
        raise
    except (OSError, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(place, f"cannot be read: {reason}", REMEDY) from error


def reason_of(error: BaseException, place: str) -> SparkringError:
    """What ended a thread of the feed, for the training thread to raise; what the thread itself explained stays as it is."""
    if isinstance(error, SparkringError):
        return error
    if isinstance(error, MemoryError):
        return ResourceError(place, f"there is no memory to read more ({str(error) or 'MemoryError'})",
                             "lower reader.read_ahead_bytes or data.window_row_groups, or give the ranks more memory")
    at = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(at[-1].filename).name}, line {at[-1].lineno}" if at else ""
    return RankFailedError(place, f"a reading thread died of {type(error).__name__}: {error}{where}",
                           "see the rank's log for the trace")


# The shards that this process has checked, by place and version: each once, however many feeds and passes read it.
_checked: set[tuple[str, str]] = set()


def _check_shard(dataset: Store, shard: Shard, columns: tuple[Column, ...], size: int) -> None:
    place = dataset.place(shard.path)
    with reading_errors(place):
        if size != shard.bytes:
            raise DataError(place, f"has {size} bytes, {shard.bytes} were published", REMEDY)
        if dataset.sha256(shard.path) != shard.sha256:
            raise DataError(place, "has changed since it was published (its SHA-256 is another)", REMEDY)
        with dataset.open(shard.path) as opened, pq.ParquetFile(opened) as file:
            schema, metadata = file.schema_arrow, file.metadata
    for field in shard_schema(columns):
        at = schema.get_field_index(field.name)
        found = schema.field(at).type if at >= 0 else None
        if found is None or not _same_type(found, field.type):
            raise DataError(place, f"column {field.name} is {found or 'missing'}, not {field.type}",
                            "prepare the dataset again")
    row_groups = row_group_runs(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    if row_groups != shard.row_groups:
        raise DataError(place, f"has {metadata.num_row_groups} row groups with {metadata.num_rows} rows, the manifest "
                        f"says {shard.num_row_groups} with {shard.rows}", REMEDY)


def _same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether the types hold the same values (writers name the element of a list as they like)."""
    if pa.types.is_list(found) and pa.types.is_list(expected):
        return found.value_type == expected.value_type
    return found == expected


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
