"""What data and trained model of a run that has ended show, best effort: ``python -m pipelines.train.exhibition ROOT RUN_ID
ATTEMPT STEP REQUEST``.

Runs on: rank 0's host, in rank 0's place: the rank becomes this program once its end is recorded, so that all the memory it
         had is free before the exported model is loaded.
Takes:   the lake's root, the run, attempt and last step; as JSON, what is asked for (``Task.exhibit_request``).
Gives:   one ``exhibits`` record behind the rank's end: what data and model show, or why something is missing.

A user's model may fail, run out of memory or hang where it was not trained to run, so a bounded process of its own runs it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from pipelines.config.load import Config
from pipelines.config.platform import Layout
from pipelines.errors import EXIT_OK, SparkringError
from pipelines.lake.exported import weights_bytes
from pipelines.lake.paths import Lake, RunFolder
from pipelines.lake.rank_records import RecordWriter
from pipelines.plan.memory import PROCESS_BYTES
from pipelines.plan.run_plan import RunPlan
from pipelines.train import rank_variables
from pipelines.train.own_hub import HubOfRank, opened_stream, record_writer

TIMEOUT_S = 120.0


def become_exhibition(run: RunFolder, attempt: int, step: int, request: dict[str, Any], hub: HubOfRank | None) -> None:
    """Never returns: the process goes on as this module's command, with the same id."""
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = [run.lake.address, run.run_id, str(attempt), str(step), json.dumps(request)]
    os.execve(sys.executable, [sys.executable, "-m", "pipelines.train.exhibition", *arguments],  # noqa: S606
              {**os.environ, **({} if hub is None else hub.variables())})


def write_exhibits(run: RunFolder, attempt: int, step: int, request: dict[str, Any], records: RecordWriter) -> None:
    """Appends the record.

    Raises:
        SparkringError: the run folder cannot be read or written.
    """
    config, plan = Config.from_json(run.store.read(run.config(attempt)).decode()), RunPlan.load(run, attempt)
    lake = run.lake
    model = lake.model(plan.run_id, "best")
    reason = too_large(config.platform.layout, weights_bytes(lake.store.below(model)), plan.memory_bytes)
    recipe, augment = config.recipe, config.recipe.data.augment
    order = {"lake": lake.address, "dataset": plan.dataset,
             "augment": None if augment is None else augment.model_dump(mode="json"), "seed": recipe.train.seed,
             "request": request, "model": None if reason else model, "factory": recipe.model.users_factory}
    timeout_s = min(TIMEOUT_S, config.platform.launch.stall_timeout_s / 2)  # the launcher waits for records no longer
    told, failure = _told(order, timeout_s)
    data, shown = ([each[of] for each in told if of in each] for of in ("data", "shown"))
    records.write("exhibits", step=step, data=data, shown=shown, reason=reason or failure)


def too_large(layout: Layout, weights_bytes: int, rank_bytes: int) -> str | None:
    """Why a rank cannot hold the whole model, or None where it can.

    Args:
        rank_bytes: what the rank that needs most was planned with.
    """
    needed = PROCESS_BYTES + weights_bytes
    if layout.num_segments == 1 or needed <= rank_bytes:
        return None
    return (f"the whole model needs {needed / 2**30:.2f} GiB, a rank of this split model is planned with "
            f"{rank_bytes / 2**30:.2f} GiB")


def _told(order: dict[str, Any], timeout_s: float) -> tuple[list[dict[str, Any]], str | None]:
    """The exhibits that were made, and why no more were."""
    try:
        done = subprocess.run([sys.executable, "-m", "pipelines.train.exhibitor"], input=json.dumps(order).encode(),
                              capture_output=True, timeout=timeout_s,
                              env={**os.environ, rank_variables.PARENT: str(os.getpid())})
    except subprocess.TimeoutExpired as error:
        return _whole_lines(error.stdout or b""), f"making it was not done after {timeout_s:g} s"
    told = _whole_lines(done.stdout)
    if done.returncode == EXIT_OK:
        return told, None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return told, f"making it was killed by {name}" + (" (often: out of memory)" if name == "SIGKILL" else "")
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return told, f"making it failed: {(lines or [f'exit code {done.returncode}'])[-1].removeprefix('error: ')}"


def _whole_lines(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.split(b"\n")[:-1]]


def main(arguments: list[str]) -> int:
    try:
        run, attempt = Lake.at(arguments[0]).run(arguments[1]), int(arguments[2])
        with record_writer(opened_stream(HubOfRank.taken()), run.live(attempt).record(0), 0, attempt) as records:
            write_exhibits(run, attempt, int(arguments[3]), json.loads(arguments[4]), records)
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
