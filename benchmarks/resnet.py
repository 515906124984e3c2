"""Images: a small residual network on MNIST's digits, 2 ranks, against torchrun DDP with the same model.

Runs on: driver; the dataset is prepared by the job itself, ranks are started without Spark.
Takes:   the IDX files of MNIST's digits (``mnist.digits``).
Gives:   ``measure``: samples per second in steady steps, both sides alternated.

Ours is the whole product: feed from shards, records of every step, the allocator settings that every rank is given. The peer
holds its data in memory and records nothing; torchrun sets no allocator.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from typing import Any

from benchmarks.mnist import WARMUP, ours, peer, prepared
from benchmarks.results import Figure

RESNET: dict[str, Any] = {"blocks": [1, 1, 1], "width": 32, "normalisation": "group"}
STEPS, ROUNDS = WARMUP + 40, 7


def measure() -> list[Figure]:
    seen: dict[str, list[float]] = {"ours": [], "ddp": []}
    with tempfile.TemporaryDirectory() as folder:
        lake, manifest, dataset, overrides = prepared(folder)
        overrides += [f"model={json.dumps({'kind': 'resnet', **RESNET})}", "train.epochs=null", f"train.steps={STEPS}",
                      f"train.evaluate_every_steps={STEPS}"]
        for round_ in range(ROUNDS):
            seen["ours"].append(ours(lake, manifest, round_, overrides)[1])
            seen["ddp"].append(peer(dataset, manifest, round_, 2, resnet=RESNET, steps=STEPS)[1])
            print("resnet: " + ", ".join(f"{side} {rates[-1]:,.1f} samples/s" for side, rates in seen.items()), flush=True)
    return [Figure("train a small resnet vs torchrun DDP", statistics.median(seen["ours"]), statistics.median(seen["ddp"]),
                   "samples/s", 1.0, "python -m benchmarks resnet",
                   note=f"fp32, 2 ranks x 1 thread, 64 digits a step, medians of {ROUNDS} alternated rounds")]
