"""Training speed: GPT of about 6 million parameters, 2 ranks x 1 thread, against torchrun DDP and against the limit.

Runs on: driver (ranks are started without Spark: what is measured is the steady state).
Takes:   nothing.
Gives:   ``measure``: figures against DDP, both eager and both compiled; against the limit; of one rank against a bare loop.

The limit is two processes that exchange nothing, with our ranks' settings of the allocator, each step as long as the slower of
the two took for it: whoever agrees in every step waits that long, and the sums of the gradients come on top.

Ours is the whole product: feed from shards, records of every step, clipping, schedule. The peers' loop holds its data
in memory and records nothing.
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

from benchmarks.commands import TAIL_BYTES
from benchmarks.datasets import publish_random
from benchmarks.peak import flops_per_token, matmul_flops
from benchmarks.results import Figure
from benchmarks.steady import steady_steps, tokens_per_s
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.launch.rank_process import ALLOCATOR

PEER = Path(__file__).parent / "peers" / "ddp.py"
MODEL = {"num_layers": 6, "num_heads": 8, "width": 256}
VOCABULARY_SIZE, SEQUENCE_LENGTH, BATCH_PER_RANK = 4096, 256, 8
STEPS, WARMUP, ROUNDS = 16, 4, 3
KINDS = ("ours", "ddp", "limit", "ours compiled", "ddp compiled", "ours alone", "alone")
# of the speed without averaging, where no core is idle: 24 MB are averaged in 0.048 of 0.873 s (communication.overlap: false)
AVERAGING_LEAVES = 0.93


def our_tokens_per_s(lake: Lake, manifest: Manifest, name: str, *, num_replicas: int, precision: str, reader: str = "arrow",
                     gradient_wire: str = "fp32", compiled: bool = False) -> float:
    """Of the whole job, in its steady steps: by the clock between the records, so that nothing is left out."""
    steps = steady_steps(
        lake, manifest, name, model=MODEL, warmup=WARMUP,
        train={"global_batch_samples": BATCH_PER_RANK * num_replicas, "steps": STEPS, "precision": precision,
               "gradient_wire": gradient_wire},
        platform={"layout": {"num_replicas": num_replicas, "micro_batch_samples": BATCH_PER_RANK, "compile": compiled},
                  "reader": {"kind": reader}})[0]
    waited = sum(step["data_wait_s"] for step in steps) / sum(step["seconds"] for step in steps)
    print(f"  data wait with {reader}: {waited:.2%}")
    return tokens_per_s(steps)


def peer_tokens_per_s(dataset: Path, kind: str, **settings: Any) -> float:
    """Of all processes of ``ddp`` (torchrun, 2 ranks), ``limit`` (2 that exchange nothing) or ``alone`` (1).

    Args:
        settings: further ones of ``peers/ddp.py``: precision, compiled, hook, qwen3; or others instead of these.
    """
    settings = {"model": MODEL, "vocabulary_size": VOCABULARY_SIZE, "batch_per_rank": BATCH_PER_RANK, "steps": STEPS,
                "warmup": WARMUP, **settings}
    script, environment = [str(PEER), str(dataset), json.dumps(settings)], dict(os.environ)
    if kind == "ddp":
        commands = [[sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *script]]
    else:
        script[-1] = json.dumps({**settings, "widened": True})  # a limit has what ours has
        commands = [[sys.executable, *script]] * (2 if kind == "limit" else 1)
        environment |= ALLOCATOR
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
                 for command in commands]
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    shares = [json.loads(line) for line in re.findall(r'{"tokens": [^{}]*}', "".join(outputs))]
    if len(shares) != (1 if kind == "alone" else 2):
        raise RuntimeError(f"peer {kind} {settings}: a process did not end well: ...{''.join(outputs)[-TAIL_BYTES:]}")
    if kind == "limit":
        slower_s = [max(seconds) for seconds in zip(*(share["seconds"] for share in shares), strict=True)]
        shares = [{**share, "seconds": slower_s} for share in shares]
    return float(sum(share["tokens"] / statistics.mean(share["seconds"]) for share in shares))


def measure(precisions: tuple[str, ...] = ("fp32", "bf16")) -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.at(folder)
        dataset = lake.root / lake.dataset("random", "v1")
        manifest = publish_random(dataset, rows=4096, sequence_length=SEQUENCE_LENGTH, vocabulary_size=VOCABULARY_SIZE,
                                  rows_per_shard=2048)
        for precision in precisions:
            rates = _alternated(lake, manifest, dataset, precision)
            figures += _figures(precision, rates, matmul_flops(precision, processes=2))
    return figures


def _alternated(lake: Lake, manifest: Manifest, dataset: Path, precision: str) -> dict[str, float]:
    """Median tokens per second of each kind."""
    seen: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for i in range(ROUNDS):
        reader = ("petastorm", "arrow")[i % 2]
        for kind in KINDS:
            if kind.startswith("ours"):
                rate = our_tokens_per_s(lake, manifest, f"{kind.replace(' ', '-')}-{precision}-{i}", precision=precision,
                                        num_replicas=1 if "alone" in kind else 2, reader=reader, compiled="compiled" in kind)
            else:
                rate = peer_tokens_per_s(dataset, kind.split()[0], precision=precision, compiled="compiled" in kind)
            seen[kind].append(rate)
        print(f"round {i + 1} of {ROUNDS}, {precision}: " + ", ".join(f"{k} {v[-1]:,.0f}" for k, v in seen.items()))
    return {kind: statistics.median(rates) for kind, rates in seen.items()}


def _figures(precision: str, rates: dict[str, float], peak_flops: float) -> list[Figure]:
    note = f"{precision}, 2 ranks x 1 thread, medians of {ROUNDS} alternated rounds; peak {peak_flops / 1e9:,.0f} GFLOP/s"
    flops = flops_per_token(MODEL, VOCABULARY_SIZE, SEQUENCE_LENGTH)
    print(f"  {precision}: MFU of " + ", ".join(
        f"{kind} {rate * flops / (peak_flops / (2 if 'alone' in kind else 1)):.3f}" for kind, rate in rates.items()))

    def figure(name: str, ours: str, peer: str, target: float) -> Figure:
        cores = 1 if "alone" in ours else 2
        return Figure(name, rates[ours], rates[peer], "tokens/s", target, "python -m benchmarks training", note=note,
                      mfu=rates[ours] * flops / (peak_flops * cores / 2))

    return [figure(f"train {precision} vs torchrun DDP", "ours", "ddp", 1.0),
            figure(f"train {precision} vs torchrun DDP, both compiled", "ours compiled", "ddp compiled", 1.0),
            figure(f"train {precision} vs the limit", "ours", "limit", AVERAGING_LEAVES),
            figure(f"loop {precision} vs bare loop, one rank", "ours alone", "alone", 0.98)]
