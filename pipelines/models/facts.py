"""The facts of the model that a recipe names.

Runs on: driver (no torch; a factory's model is looked at by ``train/probe.py`` in a process of its own).
Takes:   recipe section ``model`` and the dataset's sizes.
Gives:   ``ModelFacts``, or an error that says what the model lacks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pipelines.config.recipe import GptModel, Recipe
from pipelines.errors import EXIT_OK, ConfigError, SparkringError
from pipelines.lake.manifest import Manifest
from pipelines.models.gpt.facts import gpt_facts
from pipelines.plan.model_facts import ModelFacts

PROBE_TIMEOUT_S = 300.0
_looked_at: dict[tuple[str, str | None, str], ModelFacts] = {}  # users' models, by what was asked


def model_facts(recipe: Recipe, manifest: Manifest) -> ModelFacts:
    """Of the recipe's model for a dataset's sizes.

    Raises:
        ConfigError: a factory's model cannot be built, or its result would depend on the layout and
            ``train.same_on_any_layout`` has not been given up.
    """
    model = recipe.model
    if isinstance(model, GptModel):
        return gpt_facts(model, manifest.vocabulary_size, manifest.sequence_length)
    order = json.dumps({"model": model.model_dump(mode="json"), "vocabulary_size": manifest.vocabulary_size,
                        "sequence_length": manifest.sequence_length})
    asked = (order, os.environ.get("PYTHONPATH"), str(Path.cwd()))  # where the probe finds modules
    if asked not in _looked_at or not _looked_at[asked].is_current():
        _looked_at[asked] = _probed(order)
    facts = _looked_at[asked]
    if recipe.train.same_on_any_layout:
        _refuse(facts.random_layers, model.factory, "give another result each time they are run on the same (dropout, noise, "
                "or state from call to call)", "set their dropout to 0")
        _refuse(facts.mixing_layers, model.factory, "give a sample another result when another one is in its micro-batch "
                "(normalisation over the batch, a dimension taken for another)", "use LayerNorm or GroupNorm, batch_first=True")
    return facts


def _refuse(layers: tuple[str, ...], factory: str, problem: str, remedy: str) -> None:
    if layers:
        names = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
        raise ConfigError(SparkringError(
            "train.same_on_any_layout", f"true, but layers {names} of {factory} {problem}, so what is learned would depend on "
            "the layout", f"{remedy}, or give it up with train.same_on_any_layout: false"))


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
