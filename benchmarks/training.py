"""Training speed: GPT of about 6 million parameters, 2 ranks x 1 thread, against torchrun DDP and against the limit.

Runs on: driver (ranks are started without Spark: what is measured is the steady state).
Takes:   nothing.
Gives:   ``measure``: figures against DDP, against two independent processes, and of one rank against a bare loop.

Ours is the whole product: feed from shards, records of every step, clipping, schedule. The peers' loop holds its data
in memory and records nothing.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.datasets import publish_random
from benchmarks.results import Figure
from pipelines.config import Config
from pipelines.launch.runs import default_run_id
from pipelines.tables.manifest import Manifest
from pipelines.tables.paths import Lake
from pipelines.tables.records import RecordTail
from pipelines.train.plan import plan_run
from tests.rank_processes import run_workers

PEER = Path(__file__).parent / "peers" / "ddp.py"
MODEL = {"num_layers": 6, "num_heads": 8, "width": 256}
VOCABULARY_SIZE, SEQUENCE_LENGTH, BATCH_PER_RANK = 4096, 256, 8
STEPS, WARMUP, ROUNDS = 16, 4, 3


def our_tokens_per_s(lake: Lake, manifest: Manifest, num_replicas: int, precision: str, reader: str, name: str) -> float:
    """Of the whole job, in its steady steps: by the clock between the records, so that nothing is left out."""
    config = Config.from_json(json.dumps({
        "recipe": {"name": name, "prepare": {"inputs": [{"path": "-"}], "sequence_length": SEQUENCE_LENGTH},
                   "data": {"num_lanes": 8}, "model": MODEL, "schedule": {"warmup_steps": 2},
                   "train": {"global_batch_samples": BATCH_PER_RANK * num_replicas, "steps": STEPS, "precision": precision,
                             "evaluate_every_steps": STEPS, "sample_tokens": 0}},
        "platform": {"layout": {"num_replicas": num_replicas, "micro_batch_samples": BATCH_PER_RANK},
                     "reader": {"kind": reader}}}))
    run_id = default_run_id(config.recipe, manifest.version)
    run = lake.run(run_id)
    run.attempt(0).mkdir(parents=True)
    run.config.write_text(config.to_json())
    plan_run(config, manifest, run_id, lake).save(run.plan)
    run_workers(run.path, num_replicas)
    steps = [r for r in RecordTail(run.record(0, 0)).new_records() if r["kind"] == "step"]
    waited = sum(step["data_wait_s"] for step in steps[WARMUP:])
    seconds = sum(step["seconds"] for step in steps[WARMUP:])
    print(f"  data wait with {reader}: {waited / seconds:.2%}")
    return sum(step["global_tokens"] for step in steps[WARMUP:]) / seconds


def peer_tokens_per_s(dataset: Path, precision: str, kind: str) -> float:
    """Sum over the processes of ``ddp`` (torchrun, 2 ranks), ``independent`` (2 processes) or ``alone`` (1)."""
    settings = json.dumps({"model": MODEL, "vocabulary_size": VOCABULARY_SIZE, "batch_per_rank": BATCH_PER_RANK,
                           "steps": STEPS, "warmup": WARMUP, "precision": precision})
    script = [str(PEER), str(dataset), settings]
    if kind == "ddp":
        commands = [[sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *script]]
    else:
        commands = [[sys.executable, *script]] * (2 if kind == "independent" else 1)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for command in commands]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    return sum(float(rate) for output in outputs for rate in re.findall(r'"tokens_per_s": ([0-9.]+)', output))


def measure(precisions: tuple[str, ...] = ("fp32", "bf16")) -> list[Figure]:
    command = "python -m benchmarks training"
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.at(folder)
        dataset = lake.dataset("random", "v1")
        manifest = publish_random(dataset, rows=4096, sequence_length=SEQUENCE_LENGTH, vocabulary_size=VOCABULARY_SIZE,
                                  rows_per_shard=2048)
        for precision in precisions:
            seen: dict[str, list[float]] = {kind: [] for kind in ("ours", "ddp", "independent", "ours alone", "alone")}
            for i in range(ROUNDS):
                reader = ("petastorm", "arrow")[i % 2]
                seen["ours"].append(our_tokens_per_s(lake, manifest, 2, precision, reader, f"two-{precision}-{i}"))
                for kind in ("ddp", "independent", "alone"):
                    seen[kind].append(peer_tokens_per_s(dataset, precision, kind))
                seen["ours alone"].append(our_tokens_per_s(lake, manifest, 1, precision, reader, f"one-{precision}-{i}"))
                print(f"round {i + 1} of {ROUNDS}, {precision}: " + ", ".join(f"{k} {v[-1]:,.0f}" for k, v in seen.items()))
            middle = {kind: statistics.median(values) for kind, values in seen.items()}
            note = f"{precision}, 2 ranks x 1 thread, medians of {ROUNDS} alternated rounds"
            figures += [
                Figure(f"train {precision} vs torchrun DDP", middle["ours"], middle["ddp"], "tokens/s", 1.0, command, note=note),
                Figure(f"train {precision} vs two independent processes", middle["ours"], middle["independent"], "tokens/s",
                       0.95, command, note=note),
                Figure(f"loop {precision} vs bare loop, one rank", middle["ours alone"], middle["alone"], "tokens/s", 0.98,
                       command, note=note)]
    return figures
