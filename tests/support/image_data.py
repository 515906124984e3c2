"""Small published datasets of images, made without Spark."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.manifest import Baseline, Manifest, Shard, row_group_runs
from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore, file_sha256
from pipelines.lake.task_facts import VALUE_BYTES, TaskFacts, shard_schema
from pipelines.prepare.images.decoding import file_of, image_of
from pipelines.prepare.images.image_rows import classification_facts

PATTERN_CLASSES = ("left", "right", "top", "bottom")


def patterns(channels: int = 1, size: int = 12, encoding: str | None = VALUE_BYTES) -> TaskFacts:
    """The task of images of one bright side each."""
    return classification_facts(channels=channels, height=size, width=size, classes=PATTERN_CLASSES, mean=[0.3] * channels,
                                deviation=[0.25] * channels, class_counts=[1] * len(PATTERN_CLASSES), encoding=encoding)


def publish_images(lake: Lake, *, train_rows: int = 37, validation_rows: int = 9, rows_per_shard: int = 11,
                   rows_per_row_group: int = 4, channels: int = 1, size: int = 12, encoding: str | None = VALUE_BYTES,
                   name: str = "example") -> Manifest:
    """Noisy images, the side that is bright is their class; in the lake. Encoded as files: PNGs."""
    folder = lake.root / lake.dataset(name, "v1")
    folder.mkdir(parents=True)
    random, task, splits = np.random.default_rng(0), patterns(channels, size, encoding), {}
    for split, rows in (("train", train_rows), ("validation", validation_rows)):
        labels = random.integers(0, len(PATTERN_CLASSES), rows).astype(np.int32)
        images = random.integers(0, 120, (rows, channels, size, size)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            half = (slice(None), [slice(None), slice(None), slice(0, size // 2), slice(size // 2, size)][label],
                    [slice(0, size // 2), slice(size // 2, size), slice(None), slice(None)][label])
            image[half] += 120
        shards = []
        for i, first in enumerate(range(0, rows, rows_per_shard)):
            part, path = slice(first, first + rows_per_shard), folder / f"{split}-{i:05d}.parquet"
            count, values = len(labels[part]), math.prod(images.shape[1:])
            offsets = pa.array(np.arange(0, count * values + 1, values, dtype=np.int32))
            column = pa.ListArray.from_arrays(offsets, pa.array(images[part].ravel())) if encoding is None else pa.array(
                [image.tobytes() if encoding == VALUE_BYTES else file_of(image_of(image.transpose(1, 2, 0)), lossy=False)
                 for image in images[part]], task.columns[0].arrow_type)
            table = pa.Table.from_arrays([column, pa.array(labels[part])], schema=shard_schema(task.columns))
            pq.write_table(table, path, row_group_size=rows_per_row_group)
            groups = row_group_runs(min(rows_per_row_group, count - at) for at in range(0, count, rows_per_row_group))
            shards.append(Shard(path.name, groups, path.stat().st_size, file_sha256(path)))
        splits[split] = tuple(shards)
    manifest = Manifest(name=name, version="v1", task=task, input_fingerprint="example", recipe_hash="example", splits=splits,
                        units={}, counts={}, baselines=(Baseline("guessing", math.log(len(PATTERN_CLASSES))),))
    manifest.save(FolderStore(folder))
    return manifest
