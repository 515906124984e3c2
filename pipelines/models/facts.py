"""The facts of the model that a recipe names.

Runs on: driver (no torch).
Takes:   recipe section ``model`` and the dataset's manifest.
Gives:   ``ModelFacts``, or an error that says what the model lacks; ``check_origin``, ``check_vocabulary``.
"""

from __future__ import annotations

from pipelines.config.models import MODEL_SECTIONS
from pipelines.config.recipe import Recipe
from pipelines.errors import ConfigError, SparkringError
from pipelines.lake.manifest import Manifest
from pipelines.lake.store import Store
from pipelines.models.architectures import described_by, module_of
from pipelines.plan.model_facts import ModelFacts


def model_facts(recipe: Recipe, manifest: Manifest) -> ModelFacts:
    """Of the recipe's model for a dataset.

    Raises:
        ConfigError: a user's model cannot be built, or its result would depend on the layout and
            ``train.same_on_any_layout`` has not been given up.
    """
    if recipe.model.task not in (None, manifest.task.name):
        fitting = [kind for kind, other in MODEL_SECTIONS.items() if other.task in (None, manifest.task.name)]
        raise ConfigError(SparkringError("model.kind", f"{recipe.model.kind} is a model for {recipe.model.task}, the dataset is "
                                         f"for {manifest.task.name}", f"use {' or '.join(fitting)}"))
    facts: ModelFacts = module_of(recipe.model, "facts").facts(recipe.model, manifest.task)
    if recipe.train.same_on_any_layout:
        model = recipe.model.users_factory or recipe.model.kind
        _refuse(facts.random_layers, model, "give another result each time they are run on the same (dropout, noise, "
                "or state from call to call)", "leave dropout to nn.Dropout layers, which draw by sample")
        _refuse(facts.mixing_layers, model, "give a sample another result when another one is in its micro-batch "
                "(normalisation over the batch, a dimension taken for another)", "use LayerNorm or GroupNorm, batch_first=True")
    return facts


def check_origin(recipe: Recipe) -> None:
    """Raises CheckpointError or DataError where a model goes on from a folder that holds none: before anything is prepared."""
    if recipe.model.origin is not None:
        described_by(recipe.model)


def check_vocabulary(recipe: Recipe, dataset: Store) -> None:
    """Raises ConfigError where a model goes on from a folder whose tokens are not the dataset's."""
    if recipe.model.origin is not None:
        module_of(recipe.model, "facts").check_vocabulary(recipe.model, dataset)


def _refuse(layers: tuple[str, ...], model: str, problem: str, remedy: str) -> None:
    if layers:
        names = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
        raise ConfigError(SparkringError(
            "train.same_on_any_layout", f"true, but layers {names} of {model} {problem}, so what is learned would depend on "
            "the layout", f"{remedy}, or give it up with train.same_on_any_layout: false"))
