"""Which run this is, whether it is already done, and that nobody else is at it.

Runs on: driver.
Takes:   config, the dataset's manifest, the lake.
Gives:   a run id that is the same for the same recipe, data and code of a user's model; ``claim_run``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipelines.config.recipe import Recipe
from pipelines.errors import AlreadyRunningError, ConfigError, SparkringError
from pipelines.lake.claims import Claim, claimed
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import RunFolder
from pipelines.lake.runs import RunState, current_state
from pipelines.models.facts import model_facts

# at their defaults they leave the ids of earlier runs as they were
SETTINGS_ADDED_LATER = (("train", "same_on_any_layout"), ("train", "evaluation_rows"), ("train", "best_by"),
                        ("model", "dropout"), ("model", "vocabulary_size"), ("model", "positions"), ("model", "rope_scaling"),
                        ("data", "augment"))


def training_hash(recipe: Recipe, dataset_version: str, model_code: Mapping[str, str]) -> str:
    """8 hex digits of everything that decides what is learned. The dataset's version stands for the prepare section,
    and with it for the task.

    Args:
        model_code: see ``ModelFacts.code``; models that a section says whole have none, so that their ids stay.
    """
    settings = recipe.model_dump(mode="json", exclude={"prepare": True, "task": {"kind"}})
    if recipe.model.origin is not None:  # its content counts, not where it is
        settings["model"] = {"kind": recipe.model.kind}
    for section, key in SETTINGS_ADDED_LATER:
        field = type(getattr(recipe, section)).model_fields.get(key)  # not every kind of a section has it
        if field is not None and field.default == settings[section][key]:
            del settings[section][key]
    # a language's samples were settings of every training once
    settings["train"] = {"sample_prompt": "\n", "sample_tokens": 200, **settings["train"], **settings.pop("task")}
    content: dict[str, Any] = {"recipe": settings, "dataset": dataset_version}
    if model_code:
        content["model_code"] = dict(model_code)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def default_run_id(recipe: Recipe, manifest: Manifest) -> str:
    """Raises ConfigError where a user's model cannot be looked at."""
    return f"{recipe.name}-{training_hash(recipe, manifest.version, _model_code(recipe, manifest))}"


def check_run_id(run: RunFolder, recipe: Recipe, manifest: Manifest, *, ours: bool = False) -> RunState | None:
    """The state of an earlier execution under this id, if any.

    Args:
        ours: this process holds the run's claim.
    Raises:
        ConfigError: the id belongs to another recipe, dataset or model's code.
    """
    state = current_state(run, ours=ours)
    if state is None:
        return None
    code = _model_code(recipe, manifest)
    if state.recipe_hash == training_hash(recipe, manifest.version, code):
        return state
    belongs = f"belongs to another recipe or dataset ({state.recipe_name}, dataset {state.dataset_version})"
    if state.recipe_hash == training_hash(recipe, manifest.version, state.model_code):
        changed = sorted(name for name in code | state.model_code if code.get(name) != state.model_code.get(name))
        what = (f"the code of model.factory {recipe.model.users_factory} has" if recipe.model.origin is None
                else f"the weights of model.from {recipe.model.origin} have")
        belongs = f"belongs to another recipe: {what} changed since ({', '.join(changed[:5])})"
    raise ConfigError(SparkringError(f"--run-id {state.run_id}", belongs, "choose another id, or leave it out"))


def _model_code(recipe: Recipe, manifest: Manifest) -> dict[str, str]:
    return model_facts(recipe, manifest).code


@contextmanager
def claim_run(run: RunFolder, run_id: str) -> Iterator[Claim]:
    """Holds the run for this process; the claim ends with the process, however that ends.

    Raises:
        AlreadyRunningError: another process holds it.
    """
    refusal = AlreadyRunningError(f"run {run_id}", "is running in another process", "wait for it, or use another --run-id")
    with claimed(run.store, run.claim, refusal) as claim:
        yield claim


def next_attempt(run: RunFolder) -> int:
    """Number of the first attempt of which there is nothing yet, in the lake or on this machine."""
    begun, attempt = {*run.store.names(run.key)}, 0
    while run.attempt(attempt).rpartition("/")[2] in begun or run.live(attempt).path.exists():
        attempt += 1
    return attempt
