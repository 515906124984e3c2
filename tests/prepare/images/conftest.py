"""What the tests of prepare for images share: recipes, image files, and a dataset read back."""

from __future__ import annotations

import gzip
import io
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.config import Recipe
from pipelines.lake.manifest import Manifest, row_group_runs
from pipelines.lake.paths import Lake
from pipelines.lake.store import file_sha256
from pipelines.lake.task_facts import IMAGE_FILE


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.at(tmp_path / "the lake")


def image_recipe(*inputs: str | Path | dict[str, Any], name: str = "pictures", **prepare: Any) -> Recipe:
    sections = [source if isinstance(source, dict) else {"path": str(source)} for source in inputs]
    return Recipe.model_validate({"name": name, "train": {"steps": 1000}, "prepare": {
        "kind": "images", "inputs": sections, "split": {"validation_fraction": 0.3}, "rows_per_row_group": 8, **prepare}})


def picture(seed: int, *shape: int) -> np.ndarray:
    """uint8 values that differ for every seed: H x W, or H x W x C."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(values: np.ndarray | Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(file, form, **options)
    return file.getvalue()


def write_pictures(folder: Path, classes: dict[str, int], *shape: int, first_seed: int = 0) -> dict[bytes, str]:
    """So many different PNGs in a folder for each class; the class of each by its pixels, channel after channel."""
    classes_of: dict[bytes, str] = {}
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            seed = first_seed + len(classes_of)
            values = picture(seed, *shape)
            (folder / name / f"{seed:04d}.png").write_bytes(encoded(values))
            classes_of[channels_first(values)] = name
    return classes_of


def channels_first(values: np.ndarray) -> bytes:
    return (values if values.ndim == 2 else values.transpose(2, 0, 1)).tobytes()


def idx(values: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape) + values.tobytes()


def write_idx(folder: Path, images: np.ndarray, labels: np.ndarray, prefix: str = "t10k", *, zipped: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
        content = idx(values)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)


def rows(lake: Lake, manifest: Manifest, split: str) -> list[tuple[bytes, str]]:
    """The pixels and class of each row of a split."""
    folder = lake.root / lake.dataset(manifest.name, manifest.version)
    found, as_files = [], manifest.task.columns[0].encoding == IMAGE_FILE
    for shard in manifest.shards(split):
        table = pq.read_table(folder / shard.path)
        found += [(pixels_in(image) if as_files else bytes(image), manifest.task.facts["classes"][label])
                  for image, label in zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)]
    return found


def pixels_in(file: bytes) -> bytes:
    """Of an image file, as Pillow alone reads it."""
    return channels_first(np.asarray(Image.open(io.BytesIO(file))))


def every_row(lake: Lake, manifest: Manifest) -> list[tuple[bytes, str]]:
    return [row for split in manifest.splits for row in rows(lake, manifest, split)]


def rejected(lake: Lake, manifest: Manifest) -> Counter[str]:
    return Counter(rejected_rows(lake, manifest)["reason"])


def rejected_rows(lake: Lake, manifest: Manifest) -> pd.DataFrame:
    return pd.read_parquet(lake.root / lake.table("rejected") / f"{manifest.name}-{manifest.version}.parquet")


def check_facts(lake: Lake, manifest: Manifest) -> None:
    """Everything adds up: to the input, to the table, to the shards; and says what numpy says of the same pixels."""
    counts, sizes, facts = manifest.counts, manifest.task.sizes, manifest.task.facts
    by_reason = {key.removeprefix("rejected_"): count for key, count in counts.items() if key.startswith("rejected_")}
    assert counts["input_records"] == counts["images"] + sum(by_reason.values())
    assert {key: count for key, count in by_reason.items() if count} == rejected(lake, manifest)
    assert counts["images"] == sum(manifest.units.values())
    for split in manifest.splits:
        assert manifest.units[split] == manifest.rows(split) == len(rows(lake, manifest, split)) > 0
        for shard in manifest.shards(split):
            path = lake.root / lake.dataset(manifest.name, manifest.version) / shard.path
            metadata = pq.read_metadata(path)
            groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
            assert (shard.row_groups, shard.bytes) == (row_group_runs(groups), path.stat().st_size)
            assert shard.sha256 == file_sha256(path)
    train = rows(lake, manifest, "train")
    pixels = np.stack([np.frombuffer(image, np.uint8) for image, _ in train]).reshape(len(train), sizes["channels"], -1) / 255
    np.testing.assert_allclose(facts["mean"], pixels.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(facts["deviation"], pixels.std((0, 2)), rtol=1e-9)
    assert facts["class_counts"] == [sum(label == name for _, label in train) for name in facts["classes"]]
    assert sizes["num_classes"] == len(facts["classes"])
    guessing, frequencies = manifest.baselines
    assert np.isclose(guessing.loss, np.log(sizes["num_classes"])) and frequencies.loss > 0
    published = lake.root / lake.dataset(manifest.name, manifest.version)
    assert {path.suffix for path in published.iterdir()} == {".parquet", ".json"}
