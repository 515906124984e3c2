"""Batches for training and evaluation: what a rank's training code takes from a dataset.

Runs on: ranks.
Takes:   a dataset's store and its manifest, the recipe's order, the platform's reader, this replica's place.
Gives:   ``TrainingFeed``: step after step, this replica's samples; ``EvaluationFeed``: a split's rows, once over all
         replicas.

A training feed holds at most (``read_ahead.feed_bytes``) ``buffer_bytes`` (all lanes' open windows, and
``reader.read_ahead_bytes``); twice TAKEN_BYTES (or a step, if that is more); and, while a row group is decoded, a few
times its bytes:

    buffer_bytes = (window_steps + ahead_steps) * samples_per_step * row_bytes
    window_steps * samples_per_step  ~  lanes owned * window_row_groups * rows_per_row_group  (at most the split's rows)
    ahead_steps * samples_per_step * row_bytes  <=  read_ahead_bytes                          (at least one step)
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from pipelines.config.platform import Reader as ReaderSettings
from pipelines.config.recipe import Data
from pipelines.errors import DataError
from pipelines.feed.checked_shards import NO_SAMPLE, Rows, ShardFiles
from pipelines.feed.lanes import LaneOrder, Window, lanes_of_replica
from pipelines.feed.read_ahead import TAKEN_BYTES, ReadAhead, StepRing, ring_steps
from pipelines.feed.readers import open_reader, read_in_order
from pipelines.lake.manifest import Manifest
from pipelines.lake.store import Store


@dataclass(frozen=True)
class Batch:
    """The samples of one micro-batch; a sample of weight 0 is padding, and counts in nothing."""

    fields: dict[str, Tensor]  # by column: [B, *the column's shape]; values of padding count in nothing
    weights_B: Tensor  # float32: 1, or 0 for padding
    sample_ids_B: Tensor  # int64: the row's number in the split in file order, NO_SAMPLE for padding

    @staticmethod
    def of(rows: Rows) -> Batch:
        """Tensors that share the rows' memory."""
        weights_B = (rows.sample_ids_B != NO_SAMPLE).astype(np.float32)
        return Batch({name: torch.from_numpy(values) for name, values in rows.columns.items()},
                     torch.from_numpy(weights_B), torch.from_numpy(rows.sample_ids_B))

    def __len__(self) -> int:
        return len(self.weights_B)

    @property
    def samples(self) -> int:
        """Those that count."""
        return int((self.weights_B > 0).sum())

    def __getitem__(self, at: slice | list[int]) -> Batch:
        return Batch({name: values[at] for name, values in self.fields.items()}, self.weights_B[at], self.sample_ids_B[at])

    def cut(self, begin: int, end: int, size: int) -> list[Batch]:
        """Consecutive slices of ``size`` samples; the last one may be smaller."""
        return [self[first : min(first + size, end)] for first in range(begin, end, size)]

    def to(self, device: torch.device) -> Batch:
        return Batch({name: values.to(device) for name, values in self.fields.items()}, self.weights_B.to(device),
                     self.sample_ids_B.to(device))

    @staticmethod
    def joined(batches: list[Batch]) -> Batch:
        """The batches as one; at least one."""
        return Batch({name: torch.cat([batch.fields[name] for batch in batches]) for name in batches[0].fields},
                     torch.cat([batch.weights_B for batch in batches]), torch.cat([batch.sample_ids_B for batch in batches]))

    def padded(self, size: int) -> Batch:
        """With its first sample again, of weight 0, up to ``size`` samples.

        Raises:
            ValueError: there are more.
        """
        missing = size - len(self)
        if missing < 0:
            raise ValueError(f"{len(self)} samples are more than {size}")
        if not missing:
            return self
        again = Batch({name: values[:1].expand(missing, *values.shape[1:]) for name, values in self.fields.items()},
                      torch.zeros_like(self.weights_B[:1]).expand(missing),
                      torch.full_like(self.sample_ids_B[:1], NO_SAMPLE).expand(missing))
        return Batch.joined([self, again])


@dataclass(frozen=True)
class StepSamples:
    """One replica's samples of one step, lane after lane: joined over the replicas, the same for any number of them."""

    step: int  # from 0, over all epochs
    epoch: int
    step_in_epoch: int
    micro_batches: list[Batch]  # consecutive slices, the last one may be smaller
    samples: int  # real ones
    data_wait_s: float  # that the training thread spent in the feed


@dataclass(frozen=True)
class SampleOrder:
    """What the recipe says of the order of samples: the same on any layout."""

    data: Data
    seed: int
    global_batch_samples: int

    def of(self, shards: ShardFiles) -> LaneOrder:
        return LaneOrder(shards.row_group_rows(), num_lanes=self.data.num_lanes, shuffle=self.data.shuffle, seed=self.seed,
                         window_row_groups=self.data.window_row_groups, global_batch_samples=self.global_batch_samples)


@dataclass(frozen=True)
class Share:
    """Which replica of how many takes its part of each global batch, and in what pieces."""

    micro_batch_samples: int
    replica_index: int = 0
    num_replicas: int = 1


class TrainingFeed:
    """Iterates over steps, epoch after epoch, reading ahead in a thread until it is closed."""

    def __init__(self, dataset: Store, manifest: Manifest, reader: ReaderSettings, order: SampleOrder, share: Share, *,
                 first_step: int = 0, until_step: int | None = None, split: str = "train") -> None:
        """
        Args:
            first_step: steps already done; the samples from there on are those of the straight run.
            until_step: the step to end before; None goes on for ever.

        Raises:
            DataError: the split has no rows. ConfigError: lanes and batch or replicas do not divide.
        """
        self._shards = ShardFiles(dataset, manifest.shards(split), manifest.task.columns)
        if not manifest.rows(split):
            raise DataError(dataset.place(), f"has no {split} rows", "give more input")
        self._order = order.of(self._shards)
        self._lanes = lanes_of_replica(order.data.num_lanes, share.replica_index, share.num_replicas)
        self._reader = open_reader(reader.kind, self._shards)
        self._micro_batch_samples = share.micro_batch_samples
        self._next_step = self._first_step = first_step
        self._until_step = until_step
        self._taken: Batch
        self._taken_at = 0
        self._real_samples: deque[int] = deque()  # of each step taken and not yet given
        samples_per_step = len(self._lanes) * self._order.samples_per_lane
        self._step_bytes = samples_per_step * StepRing.row_bytes(self._shards.columns)
        self._ring = StepRing(ring_steps(self._order.max_window_steps, self._step_bytes, reader.read_ahead_bytes),
                              samples_per_step, self._shards.columns)
        self._read_ahead = ReadAhead(self._ring, first_step, self._fill, dataset.place())

    @property
    def steps_per_epoch(self) -> int:
        return self._order.steps_per_epoch

    @property
    def buffer_bytes(self) -> int:
        """What waits for the training thread, at most."""
        return self._ring.bytes

    @property
    def samples_read(self) -> int:
        """Samples that the thread has read so far, taken or waiting."""
        return self._ring.samples_put

    def __iter__(self) -> Iterator[StepSamples]:
        return self

    def __next__(self) -> StepSamples:
        began = time.perf_counter()
        if not self._real_samples:
            self._take()
        step, samples, size = self._next_step, self._real_samples.popleft(), self._ring.samples_per_step
        micro_batches = self._taken.cut(self._taken_at, self._taken_at + size, self._micro_batch_samples)
        self._next_step, self._taken_at = step + 1, self._taken_at + size
        epoch, step_in_epoch = divmod(step, self._order.steps_per_epoch)
        return StepSamples(step, epoch, step_in_epoch, micro_batches, samples, time.perf_counter() - began)

    def _take(self) -> None:
        """Takes the steps that are complete, at least one."""
        steps = max(1, TAKEN_BYTES // self._step_bytes)
        if self._until_step is not None:
            steps = min(steps, self._until_step - self._next_step)
        taken = self._read_ahead.take(steps) if steps > 0 else None
        if taken is None:
            raise StopIteration
        self._taken, self._taken_at = Batch.of(taken), 0
        real = (taken.sample_ids_B != NO_SAMPLE).reshape(-1, self._ring.samples_per_step)
        self._real_samples.extend(real.sum(axis=1).tolist())

    def close(self) -> None:
        """Ends the thread; twice does no harm."""
        self._read_ahead.close()

    def __enter__(self) -> TrainingFeed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _fill(self, read_ahead: ReadAhead) -> None:
        """In the thread: reads window after window into the ring, as room comes."""
        per_lane, until = self._order.samples_per_lane, self._until_step

        def windows() -> Iterator[Window]:
            return takewhile(lambda window: until is None or window.first_ordinal < until * per_lane,
                             self._order.windows(self._lanes, self._first_step))

        # a second pass, not a tee: the thread that decodes asks for them, and a tee is no place for two threads
        row_groups = (int(number) for window in windows() for number in window.row_groups_P)
        with closing(read_in_order(self._reader, self._shards, row_groups)) as rows_read:
            for window in windows():
                read_ahead.announce(window.first_ordinal // per_lane)
                if not read_ahead.wait_for_room((window.first_ordinal + window.rows - 1) // per_lane):
                    return
                self._put_window(window, rows_read)
        # the last steps asked for; or all there will ever be, where none of these lanes has a row: nothing but padding
        read_ahead.announce(sys.maxsize if until is None else until)

    def _put_window(self, window: Window, rows_read: Iterator[Rows]) -> None:
        """Puts each sample of a window where its step has it, but for those of steps already done."""
        per_lane = self._order.samples_per_lane
        ordinals = self._order.ordinals(window)
        places = (ordinals // per_lane * self._ring.samples_per_step
                  + (window.lane - self._lanes.start) * per_lane + ordinals % per_lane)
        wanted = ordinals >= self._first_step * per_lane
        ends = np.cumsum(window.rows_P)
        for end, piece in zip(ends, pieces_of(window, rows_read), strict=True):
            here = slice(end - len(piece), end)
            if wanted[here].all():
                self._ring.put(places[here], piece)
            else:
                self._ring.put(places[here][wanted[here]], piece[np.flatnonzero(wanted[here])])


class EvaluationFeed:
    """A split's rows once over all replicas, in file order, not shuffled. Every iteration is a pass of its own."""

    def __init__(self, dataset: Store, manifest: Manifest, reader: ReaderSettings, share: Share, *, split: str,
                 rows: int | None = None) -> None:
        """``rows``: only the first so many of the split, the same ones for any number of replicas; None: all."""
        self._shards = ShardFiles(dataset, manifest.shards(split), manifest.task.columns)
        self._reader = open_reader(reader.kind, self._shards)
        self._share = share
        # One unshuffled lane per replica is one contiguous range of rows per replica; its only window is all of it.
        rows_G = self._shards.row_group_rows()
        if rows is not None:  # what is left of them when each row group's turn comes
            rows_G = np.clip(rows - (np.cumsum(rows_G) - rows_G), 0, rows_G)
        self._order = LaneOrder(rows_G, num_lanes=share.num_replicas, global_batch_samples=share.num_replicas,
                                window_row_groups=max(1, self._shards.num_row_groups), shuffle=False, seed=0)

    def __len__(self) -> int:
        """This replica's number of micro-batches, known without reading."""
        rows = sum(window.rows for window in self._order.windows_of_epoch(self._share.replica_index, epoch=0))
        return -(-rows // self._share.micro_batch_samples)

    def __iter__(self) -> Iterator[Batch]:
        """This replica's micro-batches; replicas may have different numbers of them. Memory: a few row groups."""
        size = self._share.micro_batch_samples
        held: list[Rows] = []
        for window in self._order.windows_of_epoch(self._share.replica_index, epoch=0):
            with closing(read_in_order(self._reader, self._shards, map(int, window.row_groups_P))) as rows_read:
                for piece in pieces_of(window, rows_read):
                    rows = Rows.joined([*held, piece])
                    whole = len(rows) // size * size
                    yield from Batch.of(rows[:whole]).cut(0, whole, size)
                    held = [rows[whole:]]
        for rest in held:
            yield from Batch.of(rest).cut(0, len(rest), size)


def pieces_of(window: Window, rows_read: Iterator[Rows]) -> Iterator[Rows]:
    """The window's part of each of its row groups."""
    for first, rows in zip(window.first_rows_P, window.rows_P, strict=True):
        yield next(rows_read)[first : first + rows]
