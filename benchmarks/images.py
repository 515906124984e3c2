"""Image preparation: a folder of PNG files to shards of pixels, 2 cores, against Hugging Face datasets.

Runs on: driver.
Takes:   pictures drawn from a seed: smooth colours with some noise, as photographs compress, in folders by class.
Gives:   ``measure``: images per second in steady state (both sides have done a run before), alternated.

Ours does more in that time: exact deduplication by pixels, split by their hash, checksums, mean and deviation, class counts,
table of refused files.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.commands import output_of
from benchmarks.peers.environment import peers_python
from benchmarks.results import Figure
from pipelines.config import Platform, Recipe
from pipelines.lake.paths import Lake
from pipelines.prepare.prepare import prepare
from pipelines.spark.session import spark_session

PEER = Path(__file__).parent / "peers" / "hf_images.py"
IMAGES, CLASSES, SIDE = 20_000, 10, 64
WARM_RUNS, ROUNDS = 2, 3


def write_images(folder: Path, images: int = IMAGES, ending: str = "png") -> None:
    """No two of them equal, in folders by class."""
    random = np.random.default_rng(0)
    for number in range(images):
        corners = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        smooth = np.asarray(corners.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.int16)
        values = np.clip(smooth + random.integers(-3, 4, smooth.shape), 0, 255).astype(np.uint8)
        target = folder / f"class-{number % CLASSES}" / f"{number:06d}.{ending}"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(target, quality=90)


def measure() -> list[Figure]:
    platform = Platform.model_validate({"spark": {"master": "local[2]", "conf": {"spark.driver.memory": "4g"}}})
    seen: dict[str, list[float]] = {"ours": [], "datasets": []}
    python = peers_python()
    with tempfile.TemporaryDirectory() as name, spark_session(platform, "bench-images") as spark:
        folder = Path(name)
        write_images(folder / "images")
        recipe = Recipe.model_validate({"name": "bench", "train": {"steps": 1000},
                                        "prepare": {"kind": "images", "inputs": [{"path": str(folder / "images")}]}})
        for round_ in range(WARM_RUNS + ROUNDS):
            lake = Lake.at(folder / "lake")
            began = time.perf_counter()
            manifest = prepare(spark, recipe, lake, report=lambda line: None)
            seconds = time.perf_counter() - began
            shutil.rmtree(lake.root)
            if round_ < WARM_RUNS:
                continue
            seen["ours"].append(manifest.counts["images"] / seconds)
            printed = output_of(python, PEER, folder / "images", folder / "peer", "--warm")
            shutil.rmtree(folder / "peer")
            peer = json.loads(printed.splitlines()[-1])
            seen["datasets"].append(peer["images"] / peer["seconds"])
            print("images: " + ", ".join(f"{side} {rates[-1]:,.0f} images/s" for side, rates in seen.items()))
    return [Figure(f"prepare, PNG folder of {SIDE} x {SIDE} to shards of pixels, vs datasets imagefolder, map(num_proc=2)",
                   statistics.median(seen["ours"]), statistics.median(seen["datasets"]), "images/s", 1.5,
                   "python -m benchmarks images", note=f"steady state, medians of {ROUNDS} alternated rounds")]
