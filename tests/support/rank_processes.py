"""Real ranks without Spark, from Pythons that have all imports done: a start takes 20 ms instead of 2 s.

What needs truly fresh processes takes ``pipelines/launch/local.py``, whose rendezvous and environments these ranks have too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.lake.paths import RunFolder
from pipelines.launch.local import rank_failure
from pipelines.launch.local_environments import attempt_environments, rank_environments
from pipelines.launch.rank_process import rank_arguments, worker_of
from tests.support.warm_python import warm_pythons

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


def run_ranks(source: str, num_ranks: int, folder: Path, argument: Any = None, *, timeout_s: float = 120,
              ranks_heard: int | None = None) -> list[Any]:
    """What ``rank_main(ring, argument)`` of a module's source returned on each of the first ``ranks_heard`` ranks, or on all.

    Raises:
        SparkringError: with the output of a rank that failed.
    """
    module = folder / "rank_module.py"
    module.write_text(source)
    logs = [folder / f"rank-{rank}.log" for rank in range(num_ranks)]
    with rank_environments(num_ranks) as environments:
        _run_warm(["-c", RUNNER, str(module), json.dumps(argument)], environments, logs, timeout_s)
    return [json.loads(log.read_text().rpartition("RESULT ")[2]) for log in logs[:ranks_heard]]


def run_workers(run: RunFolder, *, timeout_s: float = 240) -> None:
    """Every rank of a prepared run, attempt 0.

    Raises:
        SparkringError: with the output of a rank that failed.
    """
    with attempt_environments(run) as environments:
        logs = [run.live(0).log(rank) for rank in range(len(environments))]
        _run_warm(["-m", worker_of(run), *rank_arguments(run, 0)], environments, logs, timeout_s)


def _run_warm(arguments: list[str], environments: list[dict[str, str]], logs: list[Path], timeout_s: float) -> None:
    pythons = warm_pythons(len(environments))
    for python, environment, log in zip(pythons, environments, logs, strict=True):
        python.start(arguments, environment, log)
    codes = [python.exit_code(timeout_s) for python in pythons]
    for rank, (code, log) in enumerate(zip(codes, logs, strict=True)):
        if code != 0:
            raise rank_failure(rank, code, log.read_text(errors="replace"), str(log))
