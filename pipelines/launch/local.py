"""Ranks without Spark: processes of this machine, started as a Spark task starts them.

Runs on: driver, without a JVM.
Takes:   a published dataset and a config without ``layout: auto``, or a run folder that is prepared for its ranks.
Gives:   ``prepare_run``, then ``run_attempt``: logs, records and models, as a launch leaves them; no rank outlives the call.

Nobody watches these ranks as ``watch.py`` does: a bound in time ends them. Whoever starts processes in another way has
``local_environments.py`` for them.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config.load import Config
from pipelines.errors import ConfigError, SparkringError, StalledError, error_of
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake, RunFolder
from pipelines.launch.attempt import begin_attempt
from pipelines.launch.diagnosis import how_it_ended
from pipelines.launch.local_environments import attempt_environments
from pipelines.launch.planning import plan_train
from pipelines.launch.rank_process import POLL_S, end_rank, start_rank, worker_of

ECHO_S = 30.0  # from the first rank that fails until the others have noticed
TAIL_LINES = 60


def prepare_run(lake: Lake, config: Config, manifest: Manifest) -> RunFolder:
    """The recipe's run with all that the ranks of attempt 0 look for."""
    plan = plan_train(config, lake, manifest, None)
    if plan.attempt is None:
        raise ConfigError(SparkringError("layout", "auto is chosen from slots and their memory, and nothing says what there is",
                                         "give numbers"))
    begin_attempt(plan, plan.attempt, "", plan.earlier)
    return plan.run


@contextmanager
def started(run: RunFolder, attempt: int = 0) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A process for each rank of a prepared attempt, its output in the attempt's logs; none is left at the end."""
    processes: list[subprocess.Popen[bytes]] = []
    with attempt_environments(run, attempt) as environments:
        try:
            for rank, environment in enumerate(environments):
                with open(run.live(attempt).log(rank), "wb") as log:
                    processes.append(start_rank(run, attempt, environment, log, worker_of(run)))
            yield processes
        finally:
            for process in processes:
                end_rank(process)


def run_attempt(run: RunFolder, attempt: int = 0, *, timeout_s: float = math.inf) -> None:
    """Returns when all ranks of a prepared attempt ended well.

    Raises:
        SparkringError: of the exit code of the rank that failed first, with the end of its output.
        StalledError: they were not done in time.
    """
    failed, until = None, time.monotonic() + timeout_s
    with started(run, attempt) as processes:
        while True:
            codes = [process.poll() for process in processes]
            if failed is None and any(codes):
                failed = next(rank for rank, code in enumerate(codes) if code)
                until = min(until, time.monotonic() + ECHO_S)
            if None not in codes or time.monotonic() > until:
                break
            time.sleep(POLL_S)
    if failed is not None:
        log = run.live(attempt).log(failed)
        raise rank_failure(failed, processes[failed].returncode, log.read_text(encoding="utf-8", errors="replace"), str(log))
    if None in codes:
        raise StalledError(f"ranks {', '.join(str(rank) for rank, code in enumerate(codes) if code is None)}",
                           f"were not done after {timeout_s:g} s", f"logs: {run.live(attempt).path}")


def rank_failure(rank: int, exit_code: int, output: str, log: str) -> SparkringError:
    """The error that a rank ended with, and the end of what it said."""
    tail = "".join(f"\n  | {line}" for line in output.strip().splitlines()[-TAIL_LINES:])
    return error_of(exit_code, f"rank {rank}", how_it_ended(exit_code), f"its whole output: {log}{tail}")
