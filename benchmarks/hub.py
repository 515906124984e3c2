"""The hub: what the records of 1,000 ranks cost their driver, and what sending them costs a rank.

Runs on: driver; ``python -m benchmarks.hub`` in processes of their own that stand for many ranks each.
Takes:   nothing.
Gives:   ``measure``: cores of the driver's process against what is allowed; tokens/s with records over the hub against records
         that each rank appends to a file of its own.

A simulated rank sends what a real one does: a batch every ``PACE_S`` once the last one is acknowledged. The driver's side is
hub and files.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from benchmarks.datasets import publish_random
from benchmarks.results import Figure
from benchmarks.training import SEQUENCE_LENGTH, VOCABULARY_SIZE, our_tokens_per_s
from pipelines.hub.hub_address import ADDRESS, RANK, SECRET, HubAddress, taken_address
from pipelines.hub.messages import head_of, message_of, proof_of
from pipelines.hub.record_stream import PACE_S
from pipelines.lake.live_folder import LiveFolder
from pipelines.lake.paths import Lake, RunFolder
from pipelines.launch import local
from pipelines.launch.hub_server import Hub
from pipelines.launch.local_environments import attempt_environments

RANKS, RECORDS_A_SECOND, SECONDS, PROCESSES = 1000, 10, 20.0, 2
WARMUP_S = 5.0  # until all have connected
ALLOWED_CORES = 0.5
ROUNDS = 6
LOOPBACK = "127.0.0.1"
RECORD = {"kind": "step", "rank": 0, "attempt": 0, "time_s": 1790000000.123, "step": 0, "epoch": 0, "loss": 4.123456789012345,
          "learning_rate": 0.000312345678, "gradient_norm": 1.23456789012345, "global_units": 4096, "global_samples": 16,
          "units": 2048, "samples": 8, "seconds": 1.023456789, "data_wait_s": 0.000123456, "compute_s": 0.91234567,
          "communication_s": 0.1012345678, "pipeline_wait_s": 0.0, "averaging_s": 0.01234567, "memory_bytes": 1234567890}


async def simulated_rank(address: HubAddress, rank: int, seconds: float) -> int:
    """How many records it has sent and the hub has acknowledged."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    nonces = str(head_of(await reader.readuntil())["nonce"]), "0" * 32
    writer.write(message_of({"guest": "rank", "rank": rank, "nonce": nonces[1],
                         "proof": proof_of(address.secret, "guest", nonces, "rank", rank)}))
    acknowledged = int(head_of(await reader.readuntil())["lines"])
    per_batch = round(RECORDS_A_SECOND * PACE_S)
    await asyncio.sleep(rank / RANKS * PACE_S)  # ranks do not all send at one moment
    due_s = time.monotonic()
    until_s = due_s + seconds
    while due_s < until_s:
        lines = "".join(json.dumps({**RECORD, "rank": rank, "step": acknowledged + each}) + "\n" for each in range(per_batch))
        writer.write(message_of({"records": acknowledged, "count": per_batch, "dropped": 0}, lines.encode()))
        while "lines" not in (head := head_of(await reader.readuntil())):
            continue
        acknowledged = int(head["lines"])
        due_s += PACE_S
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
    writer.close()
    return acknowledged


async def simulated_ranks(address: HubAddress, ranks: range, seconds: float) -> int:
    simulated = (simulated_rank(address, rank, seconds) for rank in ranks)
    return sum(await asyncio.wait_for(asyncio.gather(*simulated), 3 * seconds))


def cores_of_driver(folder: Path) -> float:
    """CPU seconds a second of this process while it is the driver of so many ranks.

    Raises:
        RuntimeError: a record was lost.
    """
    live = LiveFolder(folder / "attempt-000")
    live.make()
    with Hub(LOOPBACK, live, RANKS) as hub:
        environment = {**os.environ, **hub.address.variables(0)}
        simulations = [subprocess.Popen([sys.executable, "-m", "benchmarks.hub", str(first), str(RANKS), str(PROCESSES)],
                                        env=environment, stdout=subprocess.PIPE) for first in range(PROCESSES)]
        time.sleep(WARMUP_S)
        began_s, cpu_s = time.monotonic(), time.process_time()
        time.sleep(SECONDS - WARMUP_S)
        cores = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
        sent = sum(int(process.communicate()[0]) for process in simulations)
    arrived = sum(path.read_bytes().count(b"\n") for path in live.records().values())
    print(f"{RANKS:,} ranks: {sent:,} records sent, {arrived:,} arrived, {sent / SECONDS:,.0f} a second; {cores:.3f} cores")
    if sent != arrived or sent < 0.8 * RANKS * RECORDS_A_SECOND * (SECONDS - WARMUP_S):
        raise RuntimeError(f"{sent} records were sent, {arrived} arrived")
    return cores


@contextmanager
def environments_without_hub(run: RunFolder, attempt: int = 0) -> Iterator[list[dict[str, str]]]:
    with ENVIRONMENTS(run, attempt) as environments:
        yield [{name: value for name, value in each.items() if name not in (ADDRESS, SECRET, RANK)} for each in environments]


ENVIRONMENTS = attempt_environments


def ratio_of_training() -> tuple[float, float]:
    """Median tokens per second over the hub, and with records in files."""
    rates: dict[str, list[float]] = {"hub": [], "files": []}
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.at(folder)
        manifest = publish_random(lake.root / lake.dataset("random", "v1"), rows=4096, sequence_length=SEQUENCE_LENGTH,
                                  vocabulary_size=VOCABULARY_SIZE, rows_per_shard=2048)
        for i in range(ROUNDS):
            for way in ("hub", "files") if i % 2 else ("files", "hub"):
                used = ENVIRONMENTS if way == "hub" else environments_without_hub
                with mock.patch.object(local, "attempt_environments", used):
                    rates[way].append(our_tokens_per_s(lake, manifest, f"{way}-{i}", num_replicas=2, precision="fp32"))
            print(f"round {i + 1} of {ROUNDS}: " + ", ".join(f"{way} {each[-1]:,.0f}" for way, each in rates.items()))
    return statistics.median(rates["hub"]), statistics.median(rates["files"])


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        cores = cores_of_driver(Path(folder))
    over_hub, to_files = ratio_of_training()
    of_driver = "the other side is what is allowed; nothing was lost"
    return [Figure(f"hub: driver of {RANKS:,} ranks x {RECORDS_A_SECOND} records/s", cores, ALLOWED_CORES, "cores", 1.0,
                   "python -m benchmarks hub", higher_is_better=False, note=of_driver),
            Figure("train with records over the hub vs in files", over_hub, to_files, "tokens/s", 0.995,
                   "python -m benchmarks hub", note=f"fp32, 2 ranks x 1 thread, medians of {ROUNDS} rounds")]


if __name__ == "__main__":
    if (found := taken_address(os.environ)) is not None:
        print(asyncio.run(simulated_ranks(found[0], range(*map(int, sys.argv[1:])), SECONDS)))
