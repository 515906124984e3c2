"""Real ranks without Spark: processes that meet through our rendezvous, with a hard timeout.

Tests hand over the source of a module that defines ``rank_main(ring, argument) -> JSON-able``; the parent asserts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.launch.rank_process import GangOrder, rank_environment
from pipelines.launch.rendezvous import Rendezvous
from pipelines.plan.places import place_ranks
from pipelines.plan.run_plan import RunPlan
from tests.warm_python import warm_pythons

LOOPBACK = "127.0.0.1"
RUNNER = """
import json, sys
import torch
torch.set_num_threads(1)
from pipelines.parallel.ring import Ring
namespace = {}
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), namespace)
ring = Ring.join()
result = namespace["rank_main"](ring, json.loads(sys.argv[2]))
ring.leave()
print("RESULT " + json.dumps(result))
"""


def ring_environments(num_ranks: int, ports: tuple[int, ...], *, num_segments: int = 1, timeout_s: float = 60,
                      cycle_time_ms: float = 1.0) -> list[dict[str, str]]:
    """The environment of each rank of a ring on this machine."""
    order = GangOrder(run_folder="", attempt=0, num_segments=num_segments, threads_per_rank=1, driver_address=LOOPBACK,
                      rendezvous_ports=ports, rendezvous_key=b"", network_interface=None, meet_timeout_s=timeout_s,
                      cycle_time_ms=cycle_time_ms)
    seats = place_ranks([LOOPBACK] * num_ranks, num_segments)
    return [rank_environment(order, seat, "lo") for seat in seats]


def run_ranks(source: str, num_ranks: int, folder: Path, argument: Any = None, *, timeout_s: float = 120,
              ranks_heard: int | None = None) -> list[Any]:
    """What ``rank_main`` returned on each of the first ``ranks_heard`` ranks, or on all; raises with the output of a rank
    that failed."""
    module = folder / "rank_module.py"
    module.write_text(source)
    outputs = _warm_outputs(["-c", RUNNER, str(module), json.dumps(argument)], num_ranks, 1, timeout_s)
    return [json.loads(output.rpartition("RESULT ")[2]) for output in outputs[:ranks_heard]]


def worker_command(run_folder: Path) -> list[str]:
    return [sys.executable, "-m", "pipelines.train.worker", str(run_folder), "0"]


def run_workers(run_folder: Path, num_ranks: int, *, num_segments: int = 1, timeout_s: float = 240,
                fresh: bool = False) -> None:
    """Runs ``pipelines.train.worker`` on every rank of a prepared run folder, attempt 0, without Spark.

    Args:
        fresh: in processes that nothing was imported in before, with a rank's settings of the allocator.
    """
    command, cycle_time_ms = worker_command(run_folder), RunPlan.load(run_folder / "plan.json").cycle_time_ms
    if fresh:
        _outputs(command, num_ranks, num_segments, timeout_s, cycle_time_ms)
    else:
        _warm_outputs(command[1:], num_ranks, num_segments, timeout_s, cycle_time_ms)


@contextmanager
def rings(num_ranks: int, num_segments: int, cycle_time_ms: float = 1.0) -> Iterator[list[dict[str, str]]]:
    """The environment of each rank, while there is where they meet."""
    with Rendezvous(LOOPBACK, num_ranks // num_segments, num_segments) as rendezvous:
        rendezvous.admit(LOOPBACK)
        yield ring_environments(num_ranks, rendezvous.ports, num_segments=num_segments, cycle_time_ms=cycle_time_ms)


@contextmanager
def started(command: list[str], num_ranks: int, num_segments: int, cycle_time_ms: float = 1.0
            ) -> Iterator[list[subprocess.Popen[str]]]:
    """One process per rank; none is left at the end."""
    with rings(num_ranks, num_segments, cycle_time_ms) as environments:
        processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                      errors="replace") for environment in environments]
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _outputs(command: list[str], num_ranks: int, num_segments: int, timeout_s: float, cycle_time_ms: float) -> list[str]:
    """What each rank printed, once all have ended well."""
    with started(command, num_ranks, num_segments, cycle_time_ms) as processes:
        outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    return _well_ended([process.returncode for process in processes], outputs)


def _warm_outputs(arguments: list[str], num_ranks: int, num_segments: int, timeout_s: float, cycle_time_ms: float = 1.0
                  ) -> list[str]:
    """As ``_outputs``, from Pythons that have all imports done."""
    pythons = warm_pythons(num_ranks)
    with tempfile.TemporaryDirectory() as folder, rings(num_ranks, num_segments, cycle_time_ms) as environments:
        files = [Path(folder) / str(rank) for rank in range(num_ranks)]
        for python, environment, file in zip(pythons, environments, files, strict=True):
            python.start(arguments, environment, file)
        codes = [python.exit_code(timeout_s) for python in pythons]
        return _well_ended(codes, [file.read_text(errors="replace") for file in files])


def _well_ended(codes: list[int], outputs: list[str]) -> list[str]:
    for rank, (code, output) in enumerate(zip(codes, outputs, strict=True)):
        if code != 0:
            raise AssertionError(f"rank {rank} ended with {code}:\n{output}")
    return outputs
