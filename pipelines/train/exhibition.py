"""What the trained model of a run that has ended shows, best effort: ``python -m pipelines.train.exhibition ROOT RUN_ID ATTEMPT
STEP REQUEST``.

Runs on: rank 0's host, in rank 0's place: the rank becomes this program once its end is recorded, so that all the memory it
         had is free before the exported model is loaded.
Takes:   the lake's root, the run, attempt and last step; as JSON, what is asked for (``Task.exhibit_request``).
Gives:   one ``exhibits`` record behind the rank's end: what the model shows, or why it shows nothing.

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
from pipelines.config.models import Model
from pipelines.config.platform import Layout
from pipelines.errors import EXIT_OK, SparkringError
from pipelines.lake.paths import WEIGHTS_NAME, Lake, RunFolder
from pipelines.lake.rank_records import RecordWriter
from pipelines.plan.memory import PROCESS_BYTES
from pipelines.plan.run_plan import RunPlan
from pipelines.train import rank_variables

TIMEOUT_S = 120.0


def become_exhibition(run: RunFolder, attempt: int, step: int, request: dict[str, Any]) -> None:
    """Never returns: the process goes on as this module's command, with the same id."""
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = [str(run.lake.root), run.run_id, str(attempt), str(step), json.dumps(request)]
    os.execv(sys.executable, [sys.executable, "-m", "pipelines.train.exhibition", *arguments])  # noqa: S606


def write_exhibits(run: RunFolder, attempt: int, step: int, request: dict[str, Any]) -> None:
    """Appends the record.

    Raises:
        SparkringError: the run folder cannot be read or written.
    """
    config, plan = Config.from_json(run.store.read(run.config(attempt)).decode()), RunPlan.load(run, attempt)
    lake = run.lake
    model = lake.model(plan.run_id, "best")
    weights = lake.store.facts(f"{model}/{WEIGHTS_NAME}")
    reason = too_large(config.platform.layout, 0 if weights is None else weights.bytes, plan.memory_bytes)
    shown: list[Any] = []
    if reason is None:
        timeout_s = min(TIMEOUT_S, config.platform.launch.stall_timeout_s / 2)  # the launcher waits for records no longer
        folders = {"folder": lake.store.place(model), "dataset": lake.store.place(plan.dataset)}
        shown, reason = _shown(config.recipe.model, folders, request, timeout_s)
    with RecordWriter(run.live(attempt).record(0), 0, attempt) as records:
        records.write("exhibits", step=step, shown=shown, reason=reason)


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


def _shown(settings: Model, folders: dict[str, str], request: dict[str, Any], timeout_s: float) -> tuple[list[Any], str | None]:
    """What the model shows, or else the reason."""
    order = json.dumps({**folders, "factory": settings.users_factory, "request": request})
    try:
        done = subprocess.run([sys.executable, "-m", "pipelines.train.exhibitor"], input=order, capture_output=True,
                              text=True, errors="replace", timeout=timeout_s,
                              env={**os.environ, rank_variables.PARENT: str(os.getpid())})
    except subprocess.TimeoutExpired:
        return [], f"making it was not done after {timeout_s:g} s"
    if done.returncode == EXIT_OK:
        return list(json.loads(done.stdout.splitlines()[-1])["shown"]), None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return [], f"making it was killed by {name}" + (" (often: out of memory)" if name == "SIGKILL" else "")
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return [], f"making it failed: {(lines or [f'exit code {done.returncode}'])[-1].removeprefix('error: ')}"


def main(arguments: list[str]) -> int:
    try:
        write_exhibits(Lake.at(arguments[0]).run(arguments[1]), int(arguments[2]), int(arguments[3]), json.loads(arguments[4]))
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
