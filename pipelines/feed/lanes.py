"""Which row goes to which step, in integers only: lanes, windows, padding, resume.

Runs on: driver (how many steps an epoch has) and ranks.
Takes:   rows of every row group of a split in file order, ``num_lanes``, ``window_row_groups``, seed, global batch.
Gives:   for any lanes and from any step, the windows to read in the order in which they are needed, and the place of
         every row of a window in its lane.

An *ordinal* is a place in a lane, counted over all epochs with the padding included: the sample at ordinal ``o``
belongs to step ``o // samples_per_lane``. A place that no row takes is padding. A row is known by its number in the
split, in file order (``sample_id``).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import ConfigError, SparkringError

Integers = NDArray[np.int64]

# What a random stream is for: no two purposes may share one.
ROW_GROUP_ORDER, ROW_ORDER = 1, 2


def steps_per_epoch(rows: int, num_lanes: int, global_batch_samples: int) -> int:
    """Steps in which every row is read once: those that the longest lane needs."""
    longest_lane_rows = -(-rows // num_lanes)
    return -(-longest_lane_rows // samples_per_lane(num_lanes, global_batch_samples))


def samples_per_lane(num_lanes: int, global_batch_samples: int) -> int:
    """What every lane gives to a step."""
    if global_batch_samples < 1 or global_batch_samples % num_lanes:
        raise ConfigError(SparkringError("train.global_batch_samples", f"{global_batch_samples} is not a multiple of "
                                         f"data.num_lanes ({num_lanes})"))
    return global_batch_samples // num_lanes


def lanes_of_replica(num_lanes: int, replica_index: int, num_replicas: int) -> range:
    """The whole lanes that a replica owns."""
    if num_replicas < 1 or num_lanes % num_replicas:
        raise ConfigError(SparkringError("layout.num_replicas", f"{num_replicas} does not divide data.num_lanes "
                                         f"({num_lanes})"))
    owned = num_lanes // num_replicas
    return range(replica_index * owned, (replica_index + 1) * owned)


def even_range(total: int, index: int, count: int) -> range:
    """Part ``index`` of ``total`` cut into ``count`` ranges whose sizes differ by at most 1."""
    return range(index * total // count, (index + 1) * total // count)


def random_order(size: int, *stream: int) -> Integers:
    """A permutation of ``range(size)`` that depends on the stream's numbers only.

    It sorts the raw output of PCG64, which numpy promises never to change (it does not promise that of
    ``Generator.permutation``), so a run resumes exactly with another version or on another platform.
    """
    return np.argsort(np.random.PCG64(np.random.SeedSequence(stream)).random_raw(size), kind="stable")


@dataclass(frozen=True)
class Window:
    """Neighbouring rows of one lane, shuffled among themselves; made of pieces of row groups, in reading order."""

    epoch: int
    lane: int
    index: int  # in its lane and epoch
    first_ordinal: int
    row_groups_P: Integers  # index of each piece's row group in the split
    first_rows_P: Integers  # where in its row group each piece begins
    rows_P: Integers

    @property
    def rows(self) -> int:
        return int(self.rows_P.sum())


@dataclass(frozen=True)
class _EpochOrder:
    """The row groups of one epoch, one after the other. A dataset has millions: 12 bytes for each."""

    row_groups_G: NDArray[np.int32]
    starts_G: Integers  # position of each one's first row; one more at the end


class LaneOrder:
    """The order of all samples of a run. Pure: equal arguments give equal answers."""

    def __init__(self, row_group_rows: ArrayLike, *, num_lanes: int, window_row_groups: int, shuffle: bool,
                 global_batch_samples: int, seed: int) -> None:
        self.num_lanes, self.samples_per_lane = num_lanes, samples_per_lane(num_lanes, global_batch_samples)
        self._rows_G = np.asarray(row_group_rows, dtype=np.int32)
        self.rows = int(self._rows_G.sum(dtype=np.int64))
        self.steps_per_epoch = steps_per_epoch(self.rows, num_lanes, global_batch_samples)
        self._window_row_groups, self._shuffle, self._seed = window_row_groups, shuffle, seed
        # lanes pass into a new epoch one by one, and what is decoded ahead before what is placed
        self._epoch_order = lru_cache(maxsize=3)(self._make_epoch_order)

    def first_ids(self, row_groups_P: Integers) -> Integers:
        """The number in the split of each row group's first row."""
        return self._first_ids[row_groups_P]

    @cached_property
    def _first_ids(self) -> Integers:
        return np.cumsum(self._rows_G, dtype=np.int64) - self._rows_G

    @property
    def max_window_rows(self) -> int:
        """No window has more rows than this."""
        largest = np.sort(self._rows_G)[-self._window_row_groups:]
        return min(int(largest.sum(dtype=np.int64)), -(-self.rows // self.num_lanes))

    @property
    def max_window_steps(self) -> int:
        """No window's rows belong to more steps than this, wherever in a step it begins."""
        return (self.max_window_rows + 2 * self.samples_per_lane - 2) // self.samples_per_lane

    def windows(self, lanes: range, first_step: int) -> Iterator[Window]:
        """Without end: these lanes' windows that hold samples of ``first_step`` or later, sorted by first ordinal.

        When a window comes, all steps before its first ordinal's are complete with the windows before it.
        """
        with_rows = [lane for lane in lanes if len(even_range(self.rows, lane, self.num_lanes))]
        return heapq.merge(*(self._windows_of_lane(lane, first_step) for lane in with_rows),
                           key=lambda window: (window.first_ordinal, window.lane))

    def ordinals(self, window: Window) -> Integers:
        """The ordinal of each row of a window, in reading order."""
        if not self._shuffle:
            return np.arange(window.first_ordinal, window.first_ordinal + window.rows)
        order = random_order(window.rows, ROW_ORDER, self._seed, window.epoch, window.lane, window.index)
        return order + window.first_ordinal

    def _windows_of_lane(self, lane: int, first_step: int) -> Iterator[Window]:
        epoch, step = divmod(first_step, self.steps_per_epoch)
        rows_done = step * self.samples_per_lane
        while True:
            yield from self.windows_of_epoch(lane, epoch, rows_done)
            epoch, rows_done = epoch + 1, 0

    def windows_of_epoch(self, lane: int, epoch: int, rows_done: int = 0) -> Iterator[Window]:
        """The windows of a lane in one epoch, without those whose rows are all among its first ``rows_done``."""
        order, positions = self._epoch_order(epoch), even_range(self.rows, lane, self.num_lanes)
        if rows_done >= len(positions):
            return
        places = (positions.start, positions.start + rows_done, positions.stop - 1)
        first, current, last = (int(at) - 1 for at in np.searchsorted(order.starts_G, places, side="right"))
        size, epoch_ordinal = self._window_row_groups, epoch * self.steps_per_epoch * self.samples_per_lane
        for index in range((current - first) // size, (last - first) // size + 1):
            begin = first + index * size
            end = min(begin + size, last + 1)
            begins_P = np.maximum(order.starts_G[begin:end], positions.start)  # position of each piece's first row
            rows_P = np.minimum(order.starts_G[begin + 1 : end + 1], positions.stop) - begins_P
            yield Window(epoch, lane, index, epoch_ordinal + int(begins_P[0]) - positions.start,
                         order.row_groups_G[begin:end].astype(np.int64), begins_P - order.starts_G[begin:end], rows_P)

    def _make_epoch_order(self, epoch: int) -> _EpochOrder:
        row_groups_G = np.flatnonzero(self._rows_G).astype(np.int32)
        if self._shuffle:
            row_groups_G = row_groups_G[random_order(len(row_groups_G), ROW_GROUP_ORDER, self._seed, epoch)]
        starts_G = np.zeros(len(row_groups_G) + 1, dtype=np.int64)
        np.cumsum(self._rows_G[row_groups_G], out=starts_G[1:])
        return _EpochOrder(row_groups_G, starts_G)
