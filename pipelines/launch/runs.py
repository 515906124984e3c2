"""Which run this is, whether it is already done, and that nobody else is at it.

Runs on: driver.
Takes:   config, dataset version, the lake.
Gives:   a run id that is the same for the same recipe and data; ``claim_run``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config.recipe import Recipe
from pipelines.errors import AlreadyRunningError, ConfigError, SparkringError
from pipelines.tables.atomic import storage_errors
from pipelines.tables.claims import claimed
from pipelines.tables.paths import RunFolder
from pipelines.tables.state import RunState, current_state

SETTINGS_ADDED_LATER = (("train", "same_on_any_layout"),)  # at their defaults they leave the ids of earlier runs as they were


def training_hash(recipe: Recipe, dataset_version: str) -> str:
    """8 hex digits of everything that decides what is learned. The dataset's version stands for the prepare section."""
    settings = recipe.model_dump(mode="json", exclude={"prepare"})
    for section, key in SETTINGS_ADDED_LATER:
        if type(getattr(recipe, section)).model_fields[key].default == settings[section][key]:
            del settings[section][key]
    content = {"recipe": settings, "dataset": dataset_version}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def default_run_id(recipe: Recipe, dataset_version: str) -> str:
    return f"{recipe.name}-{training_hash(recipe, dataset_version)}"


def check_run_id(run: RunFolder, recipe: Recipe, dataset_version: str, *, ours: bool = False) -> RunState | None:
    """The state of an earlier execution under this id, if any.

    Args:
        ours: this process holds the run's claim.
    Raises:
        ConfigError: the id belongs to another recipe or dataset.
    """
    state = current_state(run, ours=ours)
    if state is not None and state.recipe_hash != training_hash(recipe, dataset_version):
        raise ConfigError(SparkringError(f"--run-id {state.run_id}", f"belongs to another recipe or dataset "
                                         f"({state.recipe_name}, dataset {state.dataset_version})",
                                         "choose another id, or leave it out"))
    return state


@contextmanager
def claim_run(run: RunFolder, run_id: str) -> Iterator[None]:
    """Holds the run for this process; the claim ends with the process, however that ends.

    Raises:
        AlreadyRunningError: another process holds it.
    """
    with storage_errors(run.path):
        run.path.mkdir(parents=True, exist_ok=True)
    with claimed(run.claim) as ours:
        if not ours:
            raise AlreadyRunningError(f"run {run_id}", "is running in another process",
                                      "wait for it, or use another --run-id")
        yield


def next_attempt(run: RunFolder) -> int:
    """Number of the first attempt folder that does not exist yet."""
    attempt = 0
    while run.attempt(attempt).exists():
        attempt += 1
    return attempt
