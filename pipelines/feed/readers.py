"""Row groups of shards, in the order asked, by either of two readers.

Runs on: ranks, in the read-ahead thread.
Takes:   ``reader.kind``, the shards of a split, an ordered list of row groups.
Gives:   the rows of each. Both readers give the same; beside the current row group, the next ones are held (``DECODERS``).
"""

from __future__ import annotations

import importlib.util
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, Protocol

import pyarrow.parquet as pq

from pipelines.errors import ConfigError, SparkringError
from pipelines.feed.checked_shards import Rows, ShardFiles, reading_errors, reason_of

MAX_OPEN_SHARDS = 64
DECODERS = 2
# A petastorm reader takes a while to make, and looks into all its files first: enough row groups to forget the one, few
# enough that the first step does not wait for the checksums of a large dataset.
ROW_GROUPS_PER_REQUEST = 128


class ShardReader(Protocol):
    """Reads row groups of one split."""

    reads_ahead: bool  # in threads of its own

    def read(self, numbers: Sequence[int]) -> Generator[Rows, None, None]:
        """The rows of each row group (numbered in the split), in the order asked. Closing the iterator ends all that it started.

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

    The next row groups are decoded while the caller works on the current one. Closing the iterator ends that.

    Raises:
        SparkringError: whatever ended the thread, see ``reason_of``.
    """
    rest = _read_in_order(reader, shards, numbers)
    if reader.reads_ahead:
        yield from rest
        return
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
    waiting = iter(numbers)
    with closing(reader):
        while request := list(islice(waiting, ROW_GROUPS_PER_REQUEST)):
            with closing(reader.read([number for number, _ in groupby(request)])) as read:
                for _, equal in groupby(request):
                    rows = next(read)
                    for _ in equal:
                        yield rows


class ArrowReader:
    """Reads with pyarrow alone, in a few threads: while one of them waits for Python, another one decodes."""

    reads_ahead = True

    def __init__(self, shards: ShardFiles) -> None:
        self._shards = shards
        self._open_shard = lru_cache(maxsize=DECODERS * MAX_OPEN_SHARDS)(self._open)
        self._threads: ThreadPoolExecutor | None = None
        self._checking = threading.Lock()

    def read(self, numbers: Sequence[int]) -> Generator[Rows, None, None]:
        self._threads = self._threads or ThreadPoolExecutor(DECODERS, "row-groups")
        coming: deque[Future[Rows]] = deque()
        try:
            for number in numbers:
                coming.append(self._threads.submit(self._rows, number))
                if len(coming) > DECODERS:
                    yield _result(coming.popleft(), self._shards)
            while coming:
                yield _result(coming.popleft(), self._shards)
        finally:
            for each in coming:
                each.cancel()

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None
        self._open_shard.cache_clear()

    def _rows(self, number: int) -> Rows:
        shard_index, row_group_index = self._shards.row_group(number)
        with reading_errors(self._shards.place(shard_index)):
            file = self._open_shard(shard_index, threading.get_ident())
            table = file.read_row_group(row_group_index, columns=self._shards.column_names, use_threads=False)
        return self._shards.rows_of(number, table)

    def _open(self, shard_index: int, thread: int) -> pq.ParquetFile:
        """Each thread has files of its own: one cannot be read twice at once."""
        with self._checking:  # a shard is hashed once, not once a thread
            key = self._shards.checked(shard_index)
        return pq.ParquetFile(self._shards.dataset.open(key))
