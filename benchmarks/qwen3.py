"""Training speed of today's architecture: Qwen3 of 6 and of 30 million parameters, 2 ranks x 1 thread, against transformers.

Runs on: driver (ranks are started without Spark: what is measured is the steady state).
Takes:   nothing.
Gives:   ``measure``: tokens per second against transformers' ``Qwen3ForCausalLM`` under torchrun DDP, same batch, fused AdamW.

Ours is the whole product: feed from shards, records of every step, clipping, schedule. The peer holds its data in memory and
records nothing.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.datasets import publish_random
from benchmarks.results import Figure
from benchmarks.steady import steady_steps, tokens_per_s
from benchmarks.training import SEQUENCE_LENGTH, VOCABULARY_SIZE, peer_tokens_per_s
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake

STEPS, WARMUP, ROUNDS = 10, 3, 3


@dataclass(frozen=True)
class Size:
    """One of the models, and how much of a step a rank takes."""

    name: str
    model: dict[str, Any]
    batch_per_rank: int


SIZES = (Size("6 M", {"num_layers": 6, "num_heads": 4, "head_width": 64, "width": 256, "feed_width": 704}, 8),
         Size("30 M", {"num_layers": 10, "num_heads": 8, "num_key_value_heads": 4, "head_width": 64, "width": 512,
                       "feed_width": 1280}, 4))


def ours(lake: Lake, manifest: Manifest, size: Size, precision: str, round_: int) -> float:
    name = f"{size.name.split()[0]}m-{precision}-{round_}"
    return tokens_per_s(steady_steps(
        lake, manifest, name, model={"kind": "qwen3", **size.model}, warmup=WARMUP,
        train={"global_batch_samples": size.batch_per_rank * 2, "steps": STEPS, "precision": precision},
        platform={"layout": {"num_replicas": 2, "micro_batch_samples": size.batch_per_rank}, "reader": {"kind": "arrow"}})[0])


def theirs(dataset: Path, size: Size, precision: str) -> float:
    return peer_tokens_per_s(dataset, "ddp", qwen3=size.model, batch_per_rank=size.batch_per_rank, steps=STEPS, warmup=WARMUP,
                             precision=precision)


def measure() -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.at(folder)
        dataset = lake.root / lake.dataset("random", "v1")
        manifest = publish_random(dataset, rows=2048, sequence_length=SEQUENCE_LENGTH, vocabulary_size=VOCABULARY_SIZE,
                                  rows_per_shard=1024)
        for size in SIZES:
            for precision in ("fp32", "bf16"):
                seen: dict[str, list[float]] = {"ours": [], "transformers": []}
                for round_ in range(ROUNDS):
                    seen["ours"].append(ours(lake, manifest, size, precision, round_))
                    seen["transformers"].append(theirs(dataset, size, precision))
                    print(f"qwen3 {size.name} {precision}: " + ", ".join(f"{k} {v[-1]:,.0f} tokens/s" for k, v in seen.items()),
                          flush=True)
                figures.append(Figure(
                    f"train qwen3 of {size.name}, {precision}, vs transformers under DDP", statistics.median(seen["ours"]),
                    statistics.median(seen["transformers"]), "tokens/s", 1.1, "python -m benchmarks qwen3",
                    note=f"2 ranks x 1 thread, {size.batch_per_rank} rows of {SEQUENCE_LENGTH} tokens each, medians of {ROUNDS} "
                         "alternated rounds"))
    return figures
