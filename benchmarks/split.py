"""Layer split and hybrid: GPT of about 12 million parameters, against torch's pipelining under torchrun and the bound.

Runs on: driver (ranks are started without Spark: what is measured is the steady state).
Takes:   nothing.
Gives:   ``measure``: figures against a plain pipelining script, with and without DDP, and against the bound of the
         schedule; what the cut by cost gives on an uneven model; memory of a rank of 1x4 against 1x1.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.commands import output_of
from benchmarks.datasets import publish_random
from benchmarks.results import Figure
from benchmarks.steady import steady_steps, tokens_per_s
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.launch.rank_process import ALLOCATOR

PEER = Path(__file__).parent / "peers" / "pipelining.py"
COMMAND = "python -m benchmarks split"
MODEL = {"num_layers": 7, "num_heads": 8, "width": 336, "tied_embeddings": False}
COUNTS = [5, 4]  # layers of each segment: embedding and 4 blocks, 3 blocks and head, which costs as much as a block
VOCABULARY_SIZE, SEQUENCE_LENGTH = 4096, 256
MICRO_BATCHES, MICRO_BATCH_SAMPLES = 8, 2
STEPS, WARMUP, ROUNDS = 8, 2, 5
UNEVEN = {"num_layers": 8, "num_heads": 4, "width": 192, "tied_embeddings": False}  # its head costs as much as 7 blocks
UNEVEN_VOCABULARY = 16384
PEER_SETTINGS = json.dumps({"model": MODEL, "vocabulary_size": VOCABULARY_SIZE, "micro_batches": MICRO_BATCHES, "counts": COUNTS,
                            "samples_per_replica": MICRO_BATCHES * MICRO_BATCH_SAMPLES, "schedule": "1f1b", "steps": STEPS,
                            "warmup": WARMUP})
RATE = r'"tokens_per_s": ([0-9.]+)'
LARGE = {"num_layers": 12, "num_heads": 16, "width": 1024, "tied_embeddings": False}


def our_steps(lake: Lake, manifest: Manifest, name: str, layout: dict[str, Any], model: dict[str, Any], samples: int,
              steps: int = STEPS) -> list[list[dict[str, Any]]]:
    """The steady steps' records of each rank."""
    return steady_steps(lake, manifest, name, model=model, warmup=WARMUP,
                        train={"global_batch_samples": samples, "steps": steps},
                        platform={"layout": {"micro_batch_samples": MICRO_BATCH_SAMPLES, **layout}, "reader": {"kind": "arrow"}})


def peer_tokens_per_s(dataset: Path, num_ranks: int) -> float:
    printed = output_of(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", num_ranks, PEER,
                        dataset, PEER_SETTINGS)
    return float(re.findall(RATE, printed)[-1])


def bound_tokens_per_s(dataset: Path) -> float:
    """What the schedule leaves of two whole models that compute at the same time, with our ranks' settings of the allocator.

    One that has the machine to itself is faster than either of two, which share caches and memory.
    """
    processes = [subprocess.Popen([sys.executable, PEER, dataset, PEER_SETTINGS], stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, **ALLOCATOR}) for _ in range(2)]
    rates = [float(re.findall(RATE, process.communicate(timeout=900)[0])[-1]) for process in processes]
    return sum(rates) * MICRO_BATCHES / (MICRO_BATCHES + 1)


def measure() -> list[Figure]:
    seen: dict[str, list[float]] = {name: [] for name in ("1x2", "peer 1x2", "bound", "2x2", "peer 2x2", "cost", "equal")}
    split = {"num_replicas": 1, "num_segments": 2, "cut": COUNTS}
    share = MICRO_BATCHES * MICRO_BATCH_SAMPLES
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.at(folder)
        dataset = lake.root / lake.dataset("random", "v1")
        manifest = publish_random(dataset, rows=2048, sequence_length=SEQUENCE_LENGTH, vocabulary_size=VOCABULARY_SIZE,
                                  rows_per_shard=1024)
        uneven_lake = Lake.at(Path(folder) / "uneven")
        uneven = publish_random(uneven_lake.root / uneven_lake.dataset("random", "v1"), rows=512, sequence_length=SEQUENCE_LENGTH,
                                vocabulary_size=UNEVEN_VOCABULARY, rows_per_shard=512)
        for i in range(ROUNDS):
            seen["1x2"].append(tokens_per_s(our_steps(lake, manifest, f"split-{i}", split, MODEL, share)[0]))
            seen["peer 1x2"].append(peer_tokens_per_s(dataset, 2))
            seen["bound"].append(bound_tokens_per_s(dataset))
            seen["2x2"].append(tokens_per_s(our_steps(lake, manifest, f"hybrid-{i}", {**split, "num_replicas": 2}, MODEL,
                                                      2 * share)[0]))
            seen["peer 2x2"].append(peer_tokens_per_s(dataset, 4))
            for cut, value in (("cost", "cost"), ("equal", [5, 5])):
                seen[cut].append(tokens_per_s(our_steps(uneven_lake, uneven, f"{cut}-{i}", {**split, "cut": value}, UNEVEN,
                                                        share)[0]))
            print(f"round {i + 1} of {ROUNDS}: " + ", ".join(f"{name} {rates[-1]:,.0f}" for name, rates in seen.items()))
        peaks = {}
        for segments in (1, 4):
            ranks = our_steps(lake, manifest, f"memory-{segments}", {"num_replicas": 1, "num_segments": segments,
                                                                     "micro_batch_samples": 1}, LARGE, 8, steps=WARMUP + 1)
            peaks[segments] = max(step["memory_bytes"] for steps in ranks for step in steps) / 2**20
    middle = {name: statistics.median(rates) for name, rates in seen.items()}
    note = f"fp32, 1f1b, {MICRO_BATCHES} micro-batches, medians of {ROUNDS} alternated rounds"
    return [
        Figure("layer split 1x2 vs torch pipelining script", middle["1x2"], middle["peer 1x2"], "tokens/s", 1.0, COMMAND,
               note=note),
        Figure("layer split 1x2 vs the schedule's bound", middle["1x2"], middle["bound"], "tokens/s", 0.92, COMMAND, note=note),
        Figure("hybrid 2x2 vs torch pipelining + DDP script", middle["2x2"], middle["peer 2x2"], "tokens/s", 1.0, COMMAND,
               note=note),
        Figure("cut by measured cost vs equal layer counts", middle["cost"], middle["equal"], "tokens/s", 1.1, COMMAND,
               note=note),
        Figure("peak memory of a rank, 1x4 vs 1x1", peaks[4], peaks[1], "MiB", 0.45, COMMAND, higher_is_better=False,
               note="GPT of 160 M parameters; the largest rank")]
