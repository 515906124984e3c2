"""Some rows of a split by their numbers, for what is to be looked at: not for training.

Runs on: ranks.
Takes:   a dataset's store and its manifest, the numbers of the rows (``Batch.sample_ids_B``).
Gives:   ``rows_by_id``: a ``Batch`` of just these, in the order asked; ``some_rows``: of a few that are spread over the split;
         ``first_rows``: of those that a split begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np

from pipelines.feed.batches import Batch
from pipelines.feed.checked_shards import Rows, ShardFiles
from pipelines.feed.readers import open_reader, read_in_order
from pipelines.lake.manifest import Manifest
from pipelines.lake.store import Store


def rows_by_id(dataset: Store, manifest: Manifest, reader_kind: str, split: str, sample_ids: Sequence[int]) -> Batch:
    """Reads the row groups that hold them; at least one row has to be asked for.

    Raises:
        DataError: a shard is not what the manifest says.
    """
    shards = ShardFiles(dataset, manifest.shards(split), manifest.task.columns)
    ends_G = np.cumsum(shards.row_group_rows())
    groups = sorted({int(group) for group in np.searchsorted(ends_G, sample_ids, side="right")})
    found: dict[int, Rows] = {}
    with closing(read_in_order(open_reader(reader_kind, shards), shards, groups)) as rows_read:
        for rows in rows_read:
            places = np.flatnonzero(np.isin(rows.sample_ids_B, sample_ids))
            found |= {int(rows.sample_ids_B[place]): rows[np.array([place])] for place in places}
    return Batch.of(Rows.joined([found[sample_id] for sample_id in sample_ids]))


def some_rows(dataset: Store, manifest: Manifest, split: str, number: int) -> Batch | None:
    """Evenly apart in the split, always the same ones; all where there are no more; None where none are wanted.

    Raises:
        DataError: the dataset is gone or damaged.
    """
    total = manifest.rows(split)
    number = min(number, total)
    return rows_by_id(dataset, manifest, "arrow", split, [i * total // number for i in range(number)]) if number else None


def first_rows(dataset: Store, manifest: Manifest, split: str, number: int) -> Batch | None:
    """In few shards: rows of images lie in the order of a hash, so these are like any others. All where there are no more; None
    where none are wanted.

    Raises:
        DataError: the dataset is gone or damaged.
    """
    number = min(number, manifest.rows(split))
    return rows_by_id(dataset, manifest, "arrow", split, range(number)) if number else None
