"""Row groups of shards as tables, in the order asked, by either of two readers.

Runs on: ranks, in the read-ahead thread.
Takes:   ``reader.kind``, the shards of a split, an ordered list of row groups, the columns.
Gives:   one Arrow table per row group, or its rows. Both readers give identical tables; two row groups
         are held at once, the current one and the next.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ConfigError, SparkringError
from pipelines.feed.checked_shards import RowGroup, Rows, ShardFiles, reading_errors, reason_of

MAX_OPEN_SHARDS = 64
# A petastorm reader takes a while to make, and looks into all its files first: enough row groups to forget the one, few
# enough that the first step does not wait for the checksums of a large dataset.
ROW_GROUPS_PER_REQUEST = 128


class ShardReader(Protocol):
    """Reads row groups of one split."""

    def read(self, row_groups: Sequence[RowGroup], columns: list[str]) -> Generator[pa.Table, None, None]:
        """One table per row group, in the order asked. Closing the iterator ends all that it started.

        Raises:
            DataError: a shard is missing, corrupt or not what the manifest says.
        """
        ...

    def close(self) -> None:
        """Lets go of what it keeps between requests; it can be used again."""
        ...


def open_reader(kind: str, shards: ShardFiles) -> ShardReader:
    """The reader that ``reader.kind`` names. Only the petastorm reader imports petastorm.

    Raises:
        ConfigError: it is not installed.
    """
    if kind == "arrow":
        return ArrowReader(shards)
    if importlib.util.find_spec("petastorm") is None:
        raise ConfigError(SparkringError("reader.kind", "petastorm: the library is not installed",
                                         "install petastorm, or set reader.kind: arrow"))
    from pipelines.feed.petastorm_reader import PetastormReader
    return PetastormReader(shards)


def read_in_order(reader: ShardReader, shards: ShardFiles, numbers: Iterable[int]) -> Generator[Rows, None, None]:
    """The rows of each row group (numbered in the split) in the order asked; equal neighbours are read once.

    A thread decodes the next row group while the caller works on the current one. Closing the iterator ends it.

    Raises:
        SparkringError: whatever ended the thread, see ``reason_of``.
    """
    rest = _read_in_order(reader, shards, numbers)
    end = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="row-groups") as thread:
        coming: Future[Any] = thread.submit(next, rest, end)
        try:
            while (rows := _result(coming, shards)) is not end:
                coming = thread.submit(next, rest, end)
                yield rows
        finally:
            wait([coming])  # a generator that is running cannot be closed
            rest.close()


def _result(coming: Future[Any], shards: ShardFiles) -> Any:
    error = coming.exception()
    if error is not None:
        raise reason_of(error, shards.dataset.place()) from error
    return coming.result()


def _read_in_order(reader: ShardReader, shards: ShardFiles, numbers: Iterable[int]) -> Generator[Rows, None, None]:
    waiting, columns = iter(numbers), [column.name for column in shards.columns]
    with closing(reader):
        while request := list(islice(waiting, ROW_GROUPS_PER_REQUEST)):
            distinct = [shards.row_group(number) for number, _ in groupby(request)]
            with closing(reader.read(distinct, columns)) as tables:
                for number, equal in groupby(request):
                    rows = shards.rows_of(number, next(tables))
                    for _ in equal:
                        yield rows


class ArrowReader:
    """Reads with pyarrow alone."""

    def __init__(self, shards: ShardFiles) -> None:
        self._shards = shards
        self._open_shard = lru_cache(maxsize=MAX_OPEN_SHARDS)(self._open)

    def read(self, row_groups: Sequence[RowGroup], columns: list[str]) -> Generator[pa.Table, None, None]:
        for shard_index, row_group_index in row_groups:
            with reading_errors(self._shards.place(shard_index)):
                file = self._open_shard(shard_index)
                table = file.read_row_group(row_group_index, columns=columns, use_threads=False)
            yield table

    def close(self) -> None:
        self._open_shard.cache_clear()

    def _open(self, shard_index: int) -> pq.ParquetFile:
        return pq.ParquetFile(self._shards.dataset.open(self._shards.checked(shard_index)))
