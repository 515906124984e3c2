"""Training over a slow link: GPT of about 6 million parameters, 2 ranks, 100 Mb/s each way, against torchrun DDP.

Runs on: driver, as root: it makes a network namespace whose loopback is shaped, and runs both sides in it.
Takes:   nothing.
Gives:   ``measure``: figures against DDP, and of ours with bfloat16 on the wire against DDP with its bfloat16 hook.

Both directions share the loopback, so it is shaped to twice the rate of one.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.datasets import publish_random
from benchmarks.results import Figure
from benchmarks.training import SEQUENCE_LENGTH, VOCABULARY_SIZE, our_tokens_per_s, peer_tokens_per_s
from pipelines.lake.paths import Lake

RATE_MBIT, ROUNDS = 100, 3
KINDS = ("ours", "ddp", "ours bf16 wire", "ddp bf16 hook")
TIMEOUT_S = 3000


@contextmanager
def shaped_namespace() -> Iterator[str]:
    """The name of a network namespace in which only a slow loopback is.

    Raises:
        RuntimeError: not root, or iproute2 is missing.
    """
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        raise RuntimeError("the slow link needs root and iproute2 (apt-get install -y iproute2)")
    name = f"sparkring-slow-{os.getpid()}"
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "-n", name, "link", "set", "lo", "up")
        # the burst holds one of loopback's packets of 64 KiB
        _run("tc", "-n", name, "qdisc", "add", "dev", "lo", "root", "tbf", "rate", f"{2 * RATE_MBIT}mbit", "burst", "256kb",
             "latency", "200ms")
        yield name
    finally:
        _run("ip", "netns", "delete", name)


def measure() -> list[Figure]:
    with shaped_namespace() as name:
        done = subprocess.run(["ip", "netns", "exec", name, sys.executable, "-m", "benchmarks.slow_link"],
                              stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=True)
    print(done.stdout, end="")
    rates = json.loads(done.stdout.splitlines()[-1])
    note = f"fp32, {RATE_MBIT} Mb/s each way (loopback shaped to twice that), medians of {ROUNDS} alternated rounds"
    return [Figure(f"train over {RATE_MBIT} Mb/s vs {peer}", rates[ours], rates[kind], "tokens/s", target,
                   "python -m benchmarks slow_link", note=note)
            for ours, kind, peer, target in (("ours", "ddp", "torchrun DDP", 1.0),
                                             ("ours bf16 wire", "ddp bf16 hook", "torchrun DDP with its bf16 hook", 1.0))]


def _alternated() -> dict[str, float]:
    """Median tokens per second of each kind, in the namespace that this process is in."""
    seen: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.at(folder)
        dataset = lake.root / lake.dataset("random", "v1")
        manifest = publish_random(dataset, rows=4096, sequence_length=SEQUENCE_LENGTH, vocabulary_size=VOCABULARY_SIZE,
                                  rows_per_shard=2048)
        for i in range(ROUNDS):
            for kind in KINDS:
                if kind.startswith("ours"):
                    rate = our_tokens_per_s(lake, manifest, f"{kind.replace(' ', '-')}-{i}", num_replicas=2, precision="fp32",
                                            gradient_wire="bf16" if "bf16" in kind else "fp32")
                else:
                    rate = peer_tokens_per_s(dataset, "ddp", precision="fp32", hook="bf16" in kind)
                seen[kind].append(rate)
            print(f"round {i + 1} of {ROUNDS}: " + ", ".join(f"{k} {v[-1]:,.0f}" for k, v in seen.items()), flush=True)
    return {kind: statistics.median(rates) for kind, rates in seen.items()}


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30)


if __name__ == "__main__":
    print(json.dumps(_alternated()))
