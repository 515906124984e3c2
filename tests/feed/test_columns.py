"""The feed reads the columns that the manifest names, of any type and shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.config.platform import Reader
from pipelines.config.recipe import Data
from pipelines.errors import DataError
from pipelines.feed.batches import Batch, EvaluationFeed, SampleOrder, Share, TrainingFeed
from pipelines.feed.checked_shards import NO_SAMPLE
from pipelines.feed.read_ahead import StepRing
from pipelines.lake.manifest import Manifest
from pipelines.lake.store import FolderStore
from pipelines.lake.task_facts import VALUE_BYTES, Column, TaskFacts, shard_schema
from tests.support.shard_files import manifest_for, write_shard

SHAPE = (3, 4, 5)
COLUMNS = (Column("image", "uint8", SHAPE, filling=7), Column("label", "int32", filling=-1, allowed=(0, 9)),
           Column("weight", "float32", (2,)))
AS_BYTES = tuple(replace(column, encoding=VALUE_BYTES) if column.shape else column for column in COLUMNS)
TASK = TaskFacts("pictures", COLUMNS, {"channels": 3}, "samples", 1, "nats per sample")
KINDS = ["arrow", "petastorm"]


def image_of(row: int) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, SHAPE, dtype=np.uint8)


def publish_pictures(folder: Path, row_groups: list[int], label_of=lambda row: row % 10, columns=COLUMNS) -> Manifest:
    rows = range(sum(row_groups))
    values = {"image": [image_of(row).ravel() for row in rows], "weight": [np.array([row / 2, -row], "<f4") for row in rows]}
    held = {name: [each.tobytes() if columns is AS_BYTES else each.tolist() for each in arrays]
            for name, arrays in values.items()}
    table = pa.table({"image": held["image"], "label": [label_of(row) for row in rows], "weight": held["weight"]},
                     schema=shard_schema(columns))
    return manifest_for(replace(TASK, columns=columns), [write_shard(folder / "train-00000.parquet", table, row_groups)])


def check(batch: Batch) -> None:
    for row, weight, image, label, pair in zip(batch.sample_ids_B.tolist(), batch.weights_B.tolist(), batch.fields["image"],
                                               batch.fields["label"].tolist(), batch.fields["weight"].tolist(), strict=True):
        if row == NO_SAMPLE:
            assert (weight, label, pair) == (0.0, -1, [0.0, 0.0]) and bool((image == 7).all())
        else:
            assert (weight, label, pair) == (1.0, row % 10, [row / 2, -row])
            assert torch.equal(image, torch.from_numpy(image_of(row)))


@pytest.mark.parametrize("columns", [COLUMNS, AS_BYTES], ids=["lists", "bytes"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_and_labels_come_in_their_shapes_and_padding_has_their_filling(tmp_path: Path, kind: str, columns) -> None:
    manifest, seen = publish_pictures(tmp_path, [4, 4, 3], columns=columns), []
    order = SampleOrder(Data(num_lanes=2, window_row_groups=1), seed=3, global_batch_samples=4)
    with TrainingFeed(FolderStore(tmp_path), manifest, Reader(kind=kind), order, Share(3), until_step=6) as feed:
        assert feed.buffer_bytes % StepRing.row_bytes(COLUMNS) == 0
        for step in feed:
            for batch in step.micro_batches:
                check(batch)
                seen += batch.sample_ids_B.tolist()
    assert sorted(row for row in seen if row != NO_SAMPLE) == sorted([*range(11)] * 2) and NO_SAMPLE in seen
    for batch in EvaluationFeed(FolderStore(tmp_path), manifest, Reader(kind=kind), Share(4), split="train"):
        assert batch.fields["image"].shape[1:] == SHAPE and batch.fields["image"].dtype == torch.uint8
        check(batch)


def test_a_rows_bytes_are_those_of_its_columns_and_its_id() -> None:
    assert StepRing.row_bytes(COLUMNS) == 60 + 4 + 8 + 8


def test_a_value_that_is_not_allowed_is_refused_by_its_column(tmp_path: Path) -> None:
    manifest = publish_pictures(tmp_path, [2, 3], label_of=lambda row: 10 if row == 3 else 0)
    with pytest.raises(DataError, match=r"row group 1 has a label outside 0\.\.9"):
        list(EvaluationFeed(FolderStore(tmp_path), manifest, Reader(kind="arrow"), Share(4), split="train"))


def test_a_batch_that_is_padded_or_joined_keeps_all_of_its_fields() -> None:
    batch = Batch({"label": torch.tensor([4, 5]), "image": torch.ones(2, 1, 2, 2)}, torch.ones(2), torch.tensor([8, 9]))
    padded = batch.padded(5)
    assert padded.fields["label"].tolist() == [4, 5, 4, 4, 4] and padded.fields["image"].shape == (5, 1, 2, 2)
    assert padded.weights_B.tolist() == [1, 1, 0, 0, 0] and padded.sample_ids_B.tolist() == [8, 9, *[NO_SAMPLE] * 3]
    assert padded.samples == 2 and len(padded) == 5 and batch.padded(2) is batch
    joined = Batch.joined([batch, padded])
    assert joined.sample_ids_B.tolist() == [8, 9, 8, 9, *[NO_SAMPLE] * 3] and joined.fields["image"].shape == (7, 1, 2, 2)
