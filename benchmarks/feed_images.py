"""Feed of images: rows per second on one rank, from shards on a warm page cache to shuffled batches of normalised floats.

Runs on: driver; Spark prepares and exports the data before the clock starts.
Takes:   the IDX files of MNIST's digits (``mnist.digits``); pictures drawn from a seed, as JPEG files.
Gives:   ``measure``: 28 x 28 pixels against petastorm's ``make_reader`` and DataLoader on the exported dataset, and against
         torch's DataLoader over the decoded images in memory; 64 x 64 JPEGs against torch's DataLoader over the files.

Each side reads ahead beside the thread that takes its batches: ours and petastorm's in a thread, torch's in one worker process.
Batches have 64 rows. JPEGs are compared by the seconds of CPU that all of a side's threads and processes took.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.images import write_images
from benchmarks.mnist import digit_images, digits
from benchmarks.results import Figure
from pipelines.config import Platform, Recipe
from pipelines.config.platform import Reader
from pipelines.config.recipe import Data
from pipelines.feed.batches import SampleOrder, Share, TrainingFeed
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.prepare.petastorm_export import export_petastorm
from pipelines.prepare.prepare import prepare
from pipelines.spark.session import spark_session
from pipelines.tasks.table import task_of

COMMAND = "python -m benchmarks feed_images"
BATCH, ROUNDS, EPOCHS = 64, 5, 4
JPEGS = 8_000
PETASTORM_SECONDS = 8.0  # after which a round of it ends: it takes some thousand rows a second
SIDE = 28


class OurImages:
    """A feed in its steady state, and what the task makes of its batches."""

    def __init__(self, lake: Lake, manifest: Manifest) -> None:
        self._task = task_of(manifest.task)
        self.feed = TrainingFeed(lake.store.below(lake.dataset(manifest.name, manifest.version)), manifest, Reader(),
                                 SampleOrder(Data(num_lanes=4), 1, BATCH), Share(BATCH))

    def rows(self, epochs: int) -> int:
        taken = 0
        for _ in range(epochs * self.feed.steps_per_epoch):
            step = next(self.feed)
            for batch in step.micro_batches:
                self._task.inputs_and_targets(batch)
            taken += step.samples
        return taken

    def read_rows(self) -> int:
        """The fewer of the rows taken and the rows read meanwhile."""
        read_before = self.feed.samples_read
        return min(self.rows(EPOCHS), self.feed.samples_read - read_before)

    def rows_s(self) -> float:
        self.rows(1)  # uses up what was read ahead meanwhile
        began = time.perf_counter()
        return self.read_rows() / (time.perf_counter() - began)

    def rows_per_cpu_s(self) -> float:
        self.rows(1)
        return rows_per_cpu_s(self.read_rows)


class JpegFiles(Dataset[tuple[Tensor, int]]):
    """As torch's tutorials read them."""

    def __init__(self, folder: Path, normalise: Callable[[Tensor], Tensor]) -> None:
        self._files, self._normalise = sorted(folder.glob("*/*.jpg")), normalise
        self._classes = {name: i for i, name in enumerate(sorted({file.parent.name for file in self._files}))}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file = self._files[index]
        with Image.open(file) as image:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return self._normalise(pixels), self._classes[file.parent.name]


def normaliser(manifest: Manifest) -> Callable[[Tensor], Tensor]:
    mean, deviation = (torch.tensor(manifest.task.facts[name])[:, None, None] for name in ("mean", "deviation"))
    return lambda pixels: pixels.float().div_(255.0).sub_(mean).div_(deviation)


def loader_rows_s(loader: Iterable[Any], normalise: Callable[[Tensor], Tensor] | None, most_s: float = 1e9) -> float:
    """Behind the first batch, for which its worker starts."""
    batches = iter(loader)
    next(batches)
    rows, began = 0, time.perf_counter()
    for batch in batches:
        images = batch["image"] if isinstance(batch, dict) else batch[0]
        if normalise is not None:
            normalise(images)
        rows += len(images)
        if time.perf_counter() - began > most_s:
            break
    return rows / (time.perf_counter() - began)


def petastorm_rows_s(folder: Path, normalise: Callable[[Tensor], Tensor]) -> float:
    """As its documentation does it, with as long a shuffling queue as a window of ours."""
    from petastorm import make_reader
    from petastorm.pytorch import DataLoader as PetastormLoader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = make_reader(folder.as_uri(), workers_count=1, shuffle_row_groups=True, seed=1, num_epochs=None)
        with PetastormLoader(reader, batch_size=BATCH, shuffling_queue_capacity=2048) as loader:
            return loader_rows_s(loader, normalise, PETASTORM_SECONDS)


def rows_per_cpu_s(take: Callable[[], int]) -> float:
    """Of this process and of the children that end meanwhile."""
    def cpu_s() -> float:
        return sum(used.ru_utime + used.ru_stime
                   for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))

    began = cpu_s()
    rows = take()
    return rows / (cpu_s() - began)


def loader_rows(loader: Iterable[Any]) -> int:
    return sum(len(images) for images, _ in loader)


def prepared(lake: Lake, jpegs: Path, export: Path) -> tuple[Manifest, Manifest]:
    """The digits, exported too; the JPEGs, which stay encoded."""
    with spark_session(Platform.model_validate({"spark": {"master": "local[2]"}}), "bench-feed-images") as spark:
        def made(name: str, **settings: Any) -> Manifest:
            return prepare(spark, Recipe.model_validate({"name": name, "train": {"steps": 10},
                                                         "prepare": {"kind": "images", **settings}}), lake, report=lambda _: None)

        pixels = made("digits", inputs=[{"path": str(digits()), "format": "idx"}])
        export_petastorm(lambda: spark, pixels, lake, export)
        return pixels, made("jpegs", inputs=[{"path": str(jpegs)}], storage="encoded")


def measure() -> list[Figure]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as top:
        lake, jpegs, export = Lake.at(Path(top) / "lake"), Path(top) / "jpegs", Path(top) / "petastorm"
        write_images(jpegs, JPEGS, "jpg")
        pixels, encoded = prepared(lake, jpegs, export)
        images = torch.tensor(digit_images()).view(-1, 1, SIDE, SIDE)
        labelled = TensorDataset(images, torch.zeros(len(images), dtype=torch.int64))
        memory = DataLoader(labelled, BATCH, shuffle=True, num_workers=1)
        files = DataLoader(JpegFiles(jpegs, normaliser(encoded)), BATCH, shuffle=True, num_workers=1)
        ours, ours_encoded = OurImages(lake, pixels), OurImages(lake, encoded)
        try:
            sides: dict[str, Callable[[], float]] = {
                "ours": ours.rows_s, "petastorm": lambda: petastorm_rows_s(export / "train", normaliser(pixels)),
                "memory": lambda: loader_rows_s(memory, normaliser(pixels)),
                "ours, JPEG": ours_encoded.rows_per_cpu_s,
                "files": lambda: rows_per_cpu_s(lambda: loader_rows(files))}
            for side in sides.values():  # imports, page cache, checksums
                side()
            seen: dict[str, list[float]] = {name: [] for name in sides}
            for i in range(ROUNDS):
                for name, side in sides.items():
                    seen[name].append(side())
                print(f"round {i + 1} of {ROUNDS}, rows/s: " + ", ".join(f"{k} {v[-1]:,.0f}" for k, v in seen.items()))
        finally:
            ours.feed.close()
            ours_encoded.feed.close()
    middle = {name: statistics.median(rates) for name, rates in seen.items()}
    note = f"medians of {ROUNDS} alternated rounds"
    return [Figure("feed 28x28 images vs petastorm make_reader, DataLoader", middle["ours"], middle["petastorm"], "rows/s", 20.0,
                   COMMAND, note=note),
            Figure("feed 28x28 images vs torch DataLoader in memory", middle["ours"], middle["memory"], "rows/s", 1.0, COMMAND,
                   note=note),
            Figure("feed 64x64 JPEGs vs torch DataLoader of files", middle["ours, JPEG"], middle["files"], "rows/CPU s", 1.2,
                   COMMAND, note=note)]
