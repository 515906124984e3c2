"""The samples of a step, known without reading: what the feed of a rank that reads has."""

from itertools import islice

import pytest

from pipelines.config.platform import Reader
from pipelines.config.recipe import Data
from pipelines.feed.batches import Batch, SampleOrder, Share, TrainingFeed
from pipelines.feed.sample_ids import batches_of_ids
from pipelines.lake.paths import Lake
from tests.support.example_data import publish_example


@pytest.mark.parametrize(("rows", "num_replicas", "shuffle"), [(37, 1, True), (37, 2, True), (3, 4, True), (23, 2, False)])
def test_the_ids_are_those_of_the_feed_in_every_step_over_epochs(tmp_path, rows, num_replicas, shuffle):
    lake = Lake.at(tmp_path)
    manifest = publish_example(lake, train_rows=rows)
    dataset = lake.store.below(lake.dataset(manifest.name, manifest.version))
    order = SampleOrder(Data(num_lanes=4, window_row_groups=2, shuffle=shuffle), seed=5, global_batch_samples=8)
    for replica in range(num_replicas):
        share = Share(3, replica, num_replicas)
        with TrainingFeed(dataset, manifest, Reader(kind="arrow"), order, share) as feed:
            read = [Batch.joined(step.micro_batches) for step in islice(feed, 3 * feed.steps_per_epoch + 1)]
        for with_fields, ids in zip(read, batches_of_ids(dataset, manifest, order, share), strict=False):
            assert with_fields.sample_ids_B.tolist() == ids.sample_ids_B.tolist()
            assert with_fields.weights_B.tolist() == ids.weights_B.tolist()
            assert ids.fields == {}
