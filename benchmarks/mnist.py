"""Images: the classic convolutional network on 9,000 real digits, 2 ranks, against a plain script and torchrun DDP.

Runs on: driver; the dataset is prepared by the job itself, ranks are started without Spark.
Takes:   the IDX files of MNIST's digits, from the folder ``mnist`` in SPARKRING_DATA or ``../shared/data``.
Gives:   ``measure``: accuracy on 1,000 held-out digits, means of 3 seeds, and samples per second, both sides alternated.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.commands import output_of
from benchmarks.results import Figure
from pipelines.config.load import load_config
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.launch.local import prepare_run, run_attempt

ROOT = Path(__file__).parents[1]
RECIPE, PLATFORM = ROOT / "conf/recipes/mnist-cnn.yaml", ROOT / "conf/platforms/local.yaml"
PEER = Path(__file__).parent / "peers" / "mnist.py"
COMMAND = "python -m benchmarks mnist"
SEEDS, WARMUP = (1, 2, 3), 20
IDX_HEADER_BYTES = 16
TIMEOUT_S = 900


def digits() -> Path:
    folder = Path(os.environ.get("SPARKRING_DATA", ROOT.parent / "shared" / "data")) / "mnist"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: the mnist benchmark reads MNIST's files; set SPARKRING_DATA to the folder above it")
    return folder


def digit_images() -> NDArray[np.uint8]:
    """[rows, 784]."""
    file = min(digits().glob("*images*"))
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return np.frombuffer(content[IDX_HEADER_BYTES:], np.uint8).reshape(-1, 28 * 28)


def ours(lake: Lake, manifest: Manifest, seed: int, overrides: list[str]) -> tuple[float, float]:
    """Accuracy at the end; samples per second of the whole job in the median of its steps behind the first few: moments in
    which the machine itself stands still are neither side's."""
    config = load_config(RECIPE, PLATFORM, [*overrides, f"train.seed={seed}", f"name=mnist-{seed}"])
    run = prepare_run(lake, config, manifest)
    run_attempt(run, timeout_s=TIMEOUT_S)
    records = RecordTail(run.live(0).record(0)).new_records()
    steps = [record for record in records if record["kind"] == "step"][WARMUP:]
    accuracy = [record for record in records if record["kind"] == "evaluation"][-1]["accuracy"]
    return accuracy, statistics.median(step["global_samples"] / step["seconds"] for step in steps)


def peer(dataset: Path, manifest: Manifest, seed: int, processes: int, **further: Any) -> tuple[float, float]:
    """The same of the plain script, alone or as DDP.

    Args:
        further: settings of ``peers/mnist.py``: resnet, steps.
    """
    recipe = load_config(RECIPE, PLATFORM).recipe
    settings = json.dumps({
        "seed": seed, "mean": manifest.task.facts["mean"][0], "deviation": manifest.task.facts["deviation"][0],
        "learning_rate": recipe.optimizer.learning_rate, "momentum": 0.9, "batch": recipe.train.global_batch_samples,
        "epochs": recipe.train.epochs, "warmup": WARMUP, **further})
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    printed = output_of(sys.executable, *launcher, PEER, dataset, settings, timeout_s=TIMEOUT_S)
    found = [json.loads(line) for line in re.findall(r"\{[^{}]*\}", printed)]
    return statistics.mean(each["accuracy"] for each in found), sum(each["samples_per_s"] for each in found)


def prepared(folder: str) -> tuple[Lake, Manifest, Path, list[str]]:
    """The digits as a dataset in a lake: its folder there, and the overrides with which a run of 2 ranks reads it."""
    overrides = [f"storage.root={folder}", f"prepare.inputs=[{{path: '{digits()}', format: idx}}]", "layout.num_replicas=2",
                 "layout.micro_batch_samples=32"]  # a step of each rank at once, as the peers do
    output_of(sys.executable, ROOT / "jobs/prepare.py", "--recipe", RECIPE, "--platform", PLATFORM,
              *(part for override in overrides for part in ("--set", override)))
    lake = Lake.at(folder)
    (version,) = lake.store.names(lake.datasets("mnist-cnn"))
    dataset = lake.dataset("mnist-cnn", version)
    return lake, Manifest.load(lake.store.below(dataset)), lake.root / dataset, overrides


def measure() -> list[Figure]:
    accuracies: dict[str, list[float]] = {"ours": [], "alone": [], "ddp": []}
    rates: dict[str, list[float]] = {"ours": [], "alone": [], "ddp": []}
    with tempfile.TemporaryDirectory() as folder:
        lake, manifest, dataset, overrides = prepared(folder)
        print(f"{manifest.rows('train'):,} digits to train on, {manifest.rows('validation'):,} to validate")
        for seed in SEEDS:
            results = {"ours": ours(lake, manifest, seed, overrides), "alone": peer(dataset, manifest, seed, 1),
                       "ddp": peer(dataset, manifest, seed, 2)}
            for name, (accuracy, rate) in results.items():
                accuracies[name].append(accuracy)
                rates[name].append(rate)
            print(f"seed {seed}: " + ", ".join(f"{name} {accuracy:.4f}, {rate:,.0f} samples/s"
                                               for name, (accuracy, rate) in results.items()), flush=True)
    mean = {name: statistics.mean(values) for name, values in accuracies.items()}
    middle = {name: statistics.median(values) for name, values in rates.items()}
    note = f"mnist-cnn, 10 epochs, 2 ranks x 1 thread, seeds {', '.join(map(str, SEEDS))} alternated"
    return [
        Figure("mnist-cnn accuracy vs plain script", mean["ours"], mean["alone"], "share",
               max(mean["alone"] - 0.003, 0.98) / mean["alone"], COMMAND,
               note=f"{note}; the target is within 0.3 points and 98.0 %"),
        Figure("mnist-cnn vs plain script on one core", middle["ours"], middle["alone"], "samples/s", 1.6, COMMAND, note=note),
        Figure("mnist-cnn vs torchrun DDP", middle["ours"], middle["ddp"], "samples/s", 1.1, COMMAND, note=note)]
