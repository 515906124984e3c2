"""Rules that span several settings; each names the key to change and the values that would do.

Runs on: driver.
Takes:   a typed recipe and platform.
Gives:   the list of contradictions, empty when there are none.
"""

from __future__ import annotations

from pipelines.config.numbers import divisors, nearest_multiples, one_of
from pipelines.config.platform import AUTO, Platform
from pipelines.config.recipe import Recipe
from pipelines.errors import SparkringError

# Spark's settings that must not be true
UNFIT_SETTINGS = {
    "spark.dynamicAllocation.enabled": "a gang of ranks needs a fixed number of slots",
    "spark.speculation": "a second copy of a rank would disturb the first",
}


def contradictions(recipe: Recipe, platform: Platform) -> list[SparkringError]:
    """Every contradiction within the recipe and between recipe and platform."""
    return [*_recipe_contradictions(recipe), *_platform_contradictions(recipe, platform)]


def _recipe_contradictions(recipe: Recipe) -> list[SparkringError]:
    train, lanes = recipe.train, recipe.data.num_lanes
    faults = [*recipe.prepare.contradictions(), *recipe.model.contradictions(), *recipe.optimizer.contradictions()]
    if recipe.task.kind != recipe.prepare.task:
        faults.append(SparkringError(
            "task.kind", f"{recipe.task.kind!r}, but the data of prepare.kind {recipe.prepare.kind} is for {recipe.prepare.task}",
            f"use {recipe.prepare.task}, or leave it out"))
    if train.global_batch_samples % lanes:
        faults.append(SparkringError(
            "train.global_batch_samples", f"{train.global_batch_samples} is not a multiple of data.num_lanes ({lanes})",
            f"use {nearest_multiples(train.global_batch_samples, lanes)}, "
            f"or data.num_lanes {one_of(divisors(train.global_batch_samples))}"))
    if (train.steps is None) == (train.epochs is None):
        given = "neither is given" if train.steps is None else "both are given"
        faults.append(SparkringError("train.steps, train.epochs", given, "give exactly one"))
    if train.steps is not None and recipe.schedule.warmup_steps >= train.steps:
        faults.append(SparkringError("schedule.warmup_steps",
                                     f"{recipe.schedule.warmup_steps} is not below train.steps ({train.steps})"))
    metrics = ("loss", *recipe.prepare.best_by)
    if train.best_by not in metrics:
        faults.append(SparkringError("train.best_by", f"{train.best_by!r} is no metric by which a model of prepare.kind "
                                     f"{recipe.prepare.kind} is chosen", f"use {one_of(metrics)}"))
    return faults


def _platform_contradictions(recipe: Recipe, platform: Platform) -> list[SparkringError]:
    faults = []
    layout, lanes = platform.layout, recipe.data.num_lanes
    if layout.num_replicas != AUTO and lanes % layout.num_replicas:
        faults.append(SparkringError("layout.num_replicas", f"{layout.num_replicas} does not divide data.num_lanes ({lanes})",
                                     f"use {one_of(divisors(lanes))}"))
    return [*faults, *unfit_settings(platform)]


def unfit_settings(platform: Platform) -> list[SparkringError]:
    """Spark's settings that a gang of ranks cannot work with."""
    return [SparkringError(f"spark.conf.{key}", f"true: {why}", "set it to false") for key, why in UNFIT_SETTINGS.items()
            if str(platform.spark.conf.get(key, "false")).lower() == "true"]
