"""A dataset of terabytes: what a manifest of millions of row groups costs a rank."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

from pipelines.feed.checked_shards import RowGroup, ShardFiles
from pipelines.feed.lanes import LaneOrder
from pipelines.lake.manifest import MANIFEST_NAME, Shard, row_group_runs
from pipelines.lake.store import FolderStore
from pipelines.prepare.text.language_rows import language_columns
from tests.support.shard_files import manifest_in, manifest_of

SHARDS, ROW_GROUPS_PER_SHARD, ROWS = 31_250, 160, 512


def test_five_million_row_groups_take_less_than_50_bytes_each_in_a_rank_and_nothing_in_the_manifest(tmp_path: Path) -> None:
    runs = row_group_runs([ROWS] * (ROW_GROUPS_PER_SHARD - 1) + [77])
    manifest_of([Shard(f"train-{i:05d}.parquet", runs, 9, "0" * 64) for i in range(SHARDS)]).save(FolderStore(tmp_path))
    assert (tmp_path / MANIFEST_NAME).stat().st_size < 400 * SHARDS
    tracemalloc.start()
    try:
        shards = ShardFiles(FolderStore(tmp_path), manifest_in(tmp_path).shards("train"), language_columns(6, 0))
        order = LaneOrder(shards.row_group_rows(), num_lanes=16, window_row_groups=4, shuffle=True,
                          global_batch_samples=16, seed=1)
        windows = order.windows(range(16), first_step=order.steps_per_epoch - 1)  # of two epochs
        samples = sum(next(windows).rows for _ in range(64))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert samples > 32 * ROWS
    assert peak_bytes < 50 * SHARDS * ROW_GROUPS_PER_SHARD


def test_a_row_group_is_found_by_its_number_in_the_split(tmp_path: Path) -> None:
    rows = [[5, 5, 3], [2], [5, 5], [4, 4, 4, 1]]
    manifest_of([Shard(str(i), row_group_runs(each), 9, "") for i, each in enumerate(rows)]).save(FolderStore(tmp_path))
    shards = ShardFiles(FolderStore(tmp_path), manifest_in(tmp_path).shards("train"), language_columns(6, 0))
    expected = [(RowGroup(i, j), size) for i, each in enumerate(rows) for j, size in enumerate(each)]
    assert [shards.row_group(number) for number in range(shards.num_row_groups)] == [place for place, _ in expected]
    assert shards.row_group_rows().tolist() == [size for _, size in expected]
    ids = [sample_id for number in range(shards.num_row_groups) for sample_id in shards.sample_ids(number)]
    assert ids == list(range(sum(size for _, size in expected)))


def test_a_manifest_that_lists_every_row_group_is_the_same_dataset(tmp_path: Path) -> None:
    manifest_of([Shard("a", row_group_runs([5, 5, 3]), 9, "")]).save(FolderStore(tmp_path))
    new, content = manifest_in(tmp_path), json.loads((tmp_path / MANIFEST_NAME).read_text())
    assert content["splits"]["train"][0]["row_groups"] == [[2, 5], [1, 3]]
    content["splits"]["train"][0]["row_groups"] = [5, 5, 3]
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(content))
    assert manifest_in(tmp_path) == new
