"""Which samples a replica has in each step, without reading any: for ranks that hold neither inputs nor targets.

Runs on: ranks.
Takes:   a manifest, the recipe's order, this replica's place.
Gives:   ``batches_of_ids``: step after step the samples of ``TrainingFeed``, without their fields; in integers only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipelines.feed.batches import Batch, SampleOrder, Share
from pipelines.feed.checked_shards import NO_SAMPLE, Rows, ShardFiles
from pipelines.feed.lanes import Integers, LaneOrder, Window, lanes_of_replica
from pipelines.lake.manifest import Manifest
from pipelines.lake.store import Store


def batches_of_ids(dataset: Store, manifest: Manifest, order: SampleOrder, share: Share, split: str = "train") -> Iterator[Batch]:
    """A batch for each step, without end, from the first step on."""
    lane_order = order.of(ShardFiles(dataset, manifest.shards(split), manifest.task.columns))
    lanes = lanes_of_replica(order.data.num_lanes, share.replica_index, share.num_replicas)
    return (Batch.of(Rows({}, ids)) for ids in _ids_of_steps(lane_order, lanes))


def _ids_of_steps(order: LaneOrder, lanes: range) -> Iterator[Integers]:
    """What every step has of these lanes; ``NO_SAMPLE`` is padding."""
    per_lane = order.samples_per_lane
    nothing: Integers = np.full(len(lanes) * per_lane, NO_SAMPLE)
    held: dict[int, Integers] = {}
    step = 0
    for window in order.windows(lanes, 0):
        while step < window.first_ordinal // per_lane:
            yield held.pop(step, nothing)
            step += 1
        ordinals, ids = order.ordinals(window), _ids_of(order, window)
        places = (window.lane - lanes.start) * per_lane + ordinals % per_lane
        for at in np.unique(ordinals // per_lane):
            here = ordinals // per_lane == at
            held.setdefault(int(at), nothing.copy())[places[here]] = ids[here]
    while True:  # none of these lanes has a row
        yield nothing


def _ids_of(order: LaneOrder, window: Window) -> Integers:
    """The number in the split of each row of a window, in reading order."""
    firsts_P = order.first_ids(window.row_groups_P) + window.first_rows_P
    before_P = np.cumsum(window.rows_P) - window.rows_P
    return np.repeat(firsts_P - before_P, window.rows_P) + np.arange(window.rows)
