"""Feed: 513-token rows per second on one rank, from shards on a warm page cache to shuffled tensors.

Runs on: driver.
Takes:   nothing.
Gives:   ``measure``: both readers through ``TrainingFeed`` against raw pyarrow row groups (the limit) and petastorm's
         BatchedDataLoader with its shuffling queue, alternated, one compute thread; and the share of a training step
         that waits for data.

Checksums are verified before the clock starts: a process does it once, not per epoch. ``python -m benchmarks.feed`` prints
every round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
import torch

from benchmarks.datasets import publish_random
from benchmarks.results import Figure, show
from pipelines.config.platform import Reader
from pipelines.config.recipe import Data
from pipelines.feed.batches import SampleOrder, Share, StepSamples, TrainingFeed
from pipelines.lake.manifest import Manifest
from pipelines.lake.store import FolderStore
from pipelines.tasks.table import task_of
from pipelines.tasks.task import Task

ROWS, SEQUENCE_LENGTH, VOCABULARY_SIZE, ROUNDS = 204_800, 512, 4096, 7
GLOBAL_BATCH_SAMPLES, NUM_LANES, WINDOW_ROW_GROUPS, ROWS_PER_ROW_GROUP = 64, 16, 4, 512
WAIT_STEPS = 20
COMMAND = "python -m benchmarks feed"


def raw_pyarrow_rows_s(folder: Path, manifest: Manifest) -> float:
    """Every row group to numpy in file order: nothing that reads Parquet in one thread is faster."""
    began, rows = time.perf_counter(), 0
    for shard in manifest.shards("train"):
        with pq.ParquetFile(folder / shard.path) as file:
            for i in range(file.num_row_groups):
                table = file.read_row_group(i, columns=["tokens", "length"], use_threads=False)
                rows += len(table.column("tokens").chunk(0).flatten().to_numpy().reshape(-1, SEQUENCE_LENGTH + 1))
                table.column("length").to_numpy()
    return rows / (time.perf_counter() - began)


def petastorm_loader_rows_s(folder: Path, manifest: Manifest) -> float:
    """petastorm as its users shuffle: one worker thread, row groups shuffled, a queue as large as a lane's window.

    A queue of all our lanes' windows (32,768 rows) was tried: it copies itself at every row group, 4,000 rows/s.
    """
    from petastorm import make_batch_reader
    from petastorm.pytorch import BatchedDataLoader

    urls = [(folder / shard.path).as_uri() for shard in manifest.shards("train")]
    queue_rows = WINDOW_ROW_GROUPS * ROWS_PER_ROW_GROUP
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = make_batch_reader(urls, schema_fields=["tokens", "length"], workers_count=1,
                                   shuffle_row_groups=True, seed=1)
        with BatchedDataLoader(reader, batch_size=GLOBAL_BATCH_SAMPLES, shuffling_queue_capacity=queue_rows) as loader:
            batches = iter(loader)
            next(batches)
            began = time.perf_counter()  # not counted: filling its queue
            rows = sum(len(batch["tokens"]) for batch in batches)
            return rows / (time.perf_counter() - began)


class OurFeed:
    """One reader's feed in its steady state: every round takes an epoch; between rounds it may read ahead, uncounted."""

    def __init__(self, kind: str, folder: Path, manifest: Manifest) -> None:
        data = Data(num_lanes=NUM_LANES, window_row_groups=WINDOW_ROW_GROUPS)
        self.feed = TrainingFeed(FolderStore(folder), manifest, Reader.model_validate({"kind": kind}),
                                 SampleOrder(data, 1, GLOBAL_BATCH_SAMPLES), Share(GLOBAL_BATCH_SAMPLES))

    def rows_s(self) -> float:
        """The fewer of the rows taken and the rows read while the clock ran, once what was read ahead is used up."""
        for _ in range(self.feed.steps_per_epoch // 2):
            next(self.feed)
        began, read_before = time.perf_counter(), self.feed.samples_read
        taken = sum(next(self.feed).samples for _ in range(self.feed.steps_per_epoch))
        return min(taken, self.feed.samples_read - read_before) / (time.perf_counter() - began)


def data_wait_share(kind: str, folder: Path, manifest: Manifest) -> float:
    """Share of the training thread's time spent in the feed, training a GPT of 1 M parameters."""
    from pipelines.models.build import build_model
    from pipelines.models.gpt.settings import GptModel

    model = build_model(GptModel(num_layers=2, num_heads=4, width=128),
                        {"vocabulary_size": VOCABULARY_SIZE, "sequence_length": SEQUENCE_LENGTH}, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with TrainingFeed(FolderStore(folder), manifest, Reader.model_validate({"kind": kind}),
                      SampleOrder(Data(), 1, 16), Share(8)) as feed:
        next(feed)  # a run's first step waits for the first windows
        began, wait_s = time.perf_counter(), 0.0
        for _ in range(WAIT_STEPS):
            wait_s += _train(model, optimizer, task_of(manifest.task), next(feed))
        return wait_s / (time.perf_counter() - began)


def _train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, task: Task, step: StepSamples) -> float:
    for micro_batch in step.micro_batches:
        inputs_BT, targets_BT = task.inputs_and_targets(micro_batch)
        task.loss_sum(model(inputs_BT), targets_BT).backward()
    optimizer.step()
    optimizer.zero_grad()
    return step.data_wait_s


def measure() -> list[Figure]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "dataset"
        manifest = publish_random(folder, rows=ROWS, sequence_length=SEQUENCE_LENGTH, vocabulary_size=VOCABULARY_SIZE,
                                  rows_per_shard=ROWS // 4, rows_per_row_group=ROWS_PER_ROW_GROUP)
        ours = {kind: OurFeed(kind, folder, manifest) for kind in ("arrow", "petastorm")}
        sides = {"raw": lambda: raw_pyarrow_rows_s(folder, manifest), "arrow": ours["arrow"].rows_s,
                 "petastorm": ours["petastorm"].rows_s, "loader": lambda: petastorm_loader_rows_s(folder, manifest)}
        for side in sides.values():  # imports, page cache, checksums
            side()
        seen: dict[str, list[float]] = {name: [] for name in sides}
        for i in range(ROUNDS):
            for name, side in sides.items():
                seen[name].append(side())
            print(f"round {i + 1} of {ROUNDS}, rows/s: " + ", ".join(f"{k} {v[-1]:,.0f}" for k, v in seen.items()))
        for our in ours.values():
            our.feed.close()
        waits = {kind: data_wait_share(kind, folder, manifest) for kind in ours}
    return [*_rate_figures(seen), *_wait_figures(waits)]


def _rate_figures(seen: dict[str, list[float]]) -> list[Figure]:
    middle = {name: statistics.median(values) for name, values in seen.items()}
    targets: Iterable[tuple[str, str, str, float]] = (
        ("arrow", "raw", "raw pyarrow row groups", 0.9),
        ("arrow", "loader", "petastorm BatchedDataLoader, shuffled", 1.8),
        ("petastorm", "raw", "raw pyarrow row groups", 0.5),
        ("petastorm", "loader", "petastorm BatchedDataLoader, shuffled", 1.2))
    return [Figure(f"feed, {ours} reader vs {named}", middle[ours], middle[peer], "rows/s", target, COMMAND,
                   note=f"513-token rows, medians of {ROUNDS} alternated rounds")
            for ours, peer, named, target in targets]


def _wait_figures(waits: dict[str, float]) -> list[Figure]:
    return [Figure(f"data wait in training, {kind} reader vs all of a step", share, 1.0, "share", 0.01, COMMAND,
                   higher_is_better=False, note="GPT of 1 M parameters, one thread") for kind, share in waits.items()]


if __name__ == "__main__":
    show(measure())
