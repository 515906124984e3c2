"""The facts of a user's model: what a look at it finds.

Runs on: driver (no torch: ``train/probe.py`` looks, in a process of its own).
Takes:   recipe section ``model`` and the dataset's task.
Gives:   ``ModelFacts``, or the error that the look ended with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from pipelines.errors import EXIT_OK, ConfigError, SparkringError
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.factory.settings import FactoryModel
from pipelines.plan.model_facts import ModelFacts

PROBE_TIMEOUT_S = 300.0
_looked_at: dict[tuple[str, str | None, str], ModelFacts] = {}  # by what was asked


def facts(settings: FactoryModel, task: TaskFacts) -> ModelFacts:
    """Looked at again only where the code has changed.

    Raises:
        ConfigError: the model cannot be built, or cannot be trained.
    """
    order = json.dumps({"model": settings.model_dump(mode="json"), "task": asdict(task)})
    asked = (order, os.environ.get("PYTHONPATH"), str(Path.cwd()))  # where the probe finds modules
    if asked not in _looked_at or not _looked_at[asked].is_current():
        _looked_at[asked] = _probed(order)
    return _looked_at[asked]


def _probed(order: str) -> ModelFacts:
    """The driver never imports torch, and a user's module may do anything as it is imported: so, in another process."""
    try:
        done = subprocess.run([sys.executable, "-m", "pipelines.train.probe"], input=order, capture_output=True, text=True,
                              errors="replace", timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(SparkringError("model.factory", f"was not done after {PROBE_TIMEOUT_S:g} s")) from error
    if done.returncode == EXIT_OK:
        return ModelFacts.from_json(done.stdout.splitlines()[-1])
    lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"ended with {done.returncode}"]
    place, _, problem = lines[-1].removeprefix("error: ").partition(": ")
    if done.returncode == ConfigError.exit_code:
        raise ConfigError(SparkringError(place, problem))
    raise ConfigError(SparkringError("model.factory", f"failed: {lines[-1]}", "\n".join(lines[-8:])))
