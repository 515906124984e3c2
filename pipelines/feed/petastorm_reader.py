"""Row groups read by petastorm: its dataset, schema, row group and worker machinery over an exact list.

Runs on: ranks, in the read-ahead thread.
Takes:   checked shards (single files: petastorm unpickles what it finds in a folder's ``_common_metadata``).
Gives:   the rows of each row group, in the order asked; no thread of its own.

What differs from ``petastorm.make_batch_reader``: the order is ours (its own has no list of row groups, and reads seed
0 as no seed), work happens when a table is asked for (its pools read on, whatever the size), and tables stay Arrow
tables (it makes a Python object of every row of a list column).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.feed.checked_shards import REMEDY, Rows, ShardFiles, reading_errors

with warnings.catch_warnings():  # petastorm reads through classes that pyarrow calls deprecated at every use
    warnings.simplefilter("ignore")
    from petastorm.arrow_reader_worker import ArrowReaderWorker
    from petastorm.fs_utils import get_filesystem_and_path_or_paths
    from petastorm.reader import Reader
    from petastorm.workers_pool import EmptyResultError
    from petastorm.workers_pool.dummy_pool import DummyPool
    from petastorm.workers_pool.ventilator import Ventilator
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")


class PetastormReader:
    """Reads with petastorm, in the calling thread."""

    reads_ahead = False

    def __init__(self, shards: ShardFiles) -> None:
        self._shards = shards

    def read(self, numbers: Sequence[int]) -> Generator[Rows, None, None]:
        row_groups = [self._shards.row_group(number) for number in numbers]
        if not row_groups:
            return
        local = self._shards.dataset.local_path
        paths = {index: str(local(self._shards.checked(index))) for index in dict.fromkeys(shard for shard, _ in row_groups)}
        with reading_errors(self._shards.dataset.place()):
            reader = _OrderedReader([(paths[shard], index) for shard, index in row_groups], self._shards.column_names)
        with closing(reader):
            for number, row_group in zip(numbers, row_groups, strict=True):
                with reading_errors(self._shards.place(row_group.shard_index)):
                    table = next(reader)
                yield self._shards.rows_of(number, table)

    def close(self) -> None:
        """It keeps nothing between requests."""


class _OrderedReader(Reader):
    """A petastorm reader of exactly these row groups of these files, in this order."""

    def __init__(self, row_groups: list[tuple[str, int]], columns: list[str]) -> None:
        self._asked = row_groups
        self._open_files: dict[str, pq.ParquetFile] = {}
        paths = list(dict.fromkeys(path for path, _ in row_groups))
        filesystem, _ = get_filesystem_and_path_or_paths("file:///")
        super().__init__(filesystem, paths, schema_fields=columns, shuffle_row_groups=False, num_epochs=1, seed=None,
                         reader_pool=DummyPool(), worker_class=_TableWorker, is_batched_reader=True)

    def _filter_row_groups(self, dataset: Any, row_groups: list[Any], *_: Any) -> tuple[list[int], None]:
        """Petastorm's index of each row group asked for, and no predicate."""
        known = {}
        for index, piece in enumerate(row_groups):
            piece.open_file_func = self._open
            known[piece.path, piece.row_group] = index
        for path, row_group_index in self._asked:
            if (path, row_group_index) not in known:
                raise DataError(path, f"has no row group {row_group_index}", REMEDY)
        return [known[asked] for asked in self._asked], None

    def _create_ventilator(self, row_group_indexes: list[int], *_: Any) -> _InOrder:
        return _InOrder(self._workers_pool.ventilate, row_group_indexes)

    def _open(self, path: str) -> pq.ParquetFile:
        if path not in self._open_files:
            self._open_files[path] = pq.ParquetFile(path)
        return self._open_files[path]

    def close(self) -> None:
        self.stop()
        self.join()
        for file in self._open_files.values():
            file.close(force=True)


class _InOrder(Ventilator):
    """Hands the whole list of work to the pool at once: no thread, and the pool does one piece when asked for it."""

    def __init__(self, ventilate: Callable[..., None], row_group_indexes: list[int]) -> None:
        super().__init__(ventilate)
        self._row_group_indexes = row_group_indexes

    def start(self) -> None:
        for index in self._row_group_indexes:
            self._ventilate_fn(piece_index=index, worker_predicate=None, shuffle_row_drop_partition=(0, 1))

    def processed_item(self) -> None:
        """Nothing waits for it."""

    def completed(self) -> bool:
        return True

    def stop(self) -> None:
        """Nothing runs."""


class _Tables:
    """Takes a worker's result as it is."""

    batched_output = True

    def read_next(self, workers_pool: DummyPool, schema: Any, ngram: Any) -> pa.Table:
        try:
            return workers_pool.get_results()
        except EmptyResultError:
            raise StopIteration from None


class _TableWorker(ArrowReaderWorker):
    """Petastorm's worker without what costs most: it opens the file twice for every row group, and copies the table."""

    @staticmethod
    def new_results_queue_reader() -> _Tables:
        return _Tables()

    def process(self, piece_index: int, worker_predicate: None, shuffle_row_drop_partition: tuple[int, int]) -> None:
        piece = self._split_pieces[piece_index]
        file = piece.open_file_func(piece.path)
        self.publish_func(file.read_row_group(piece.row_group, columns=list(self._schema.fields), use_threads=False))
