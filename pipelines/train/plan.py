"""What a run is going to do, as plain numbers: shared by the driver, which shows it, and the ranks, which do it.

Runs on: driver and ranks (no torch, no pyspark).
Takes:   recipe, platform and the dataset's manifest.
Gives:   ``RunPlan``, saved as ``plan.json`` beside the resolved config.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.config.load import Config
from pipelines.config.recipe import Model, Recipe
from pipelines.errors import DataError
from pipelines.feed.lanes import steps_per_epoch
from pipelines.tables.atomic import write_file
from pipelines.tables.manifest import Manifest

FLOAT_BYTES = 4


@dataclass(frozen=True)
class RunPlan:
    """Everything a rank needs beside the resolved config."""

    run_id: str
    dataset: str  # folder
    models: str  # folder that will hold best/ and last/
    steps: int
    steps_per_epoch: int
    parameters: int
    tokens_per_step: int
    memory_bytes: int  # of one rank, estimated

    def save(self, path: Path) -> None:
        write_file(path, json.dumps(asdict(self), indent=2))

    @staticmethod
    def load(path: Path) -> RunPlan:
        try:
            return RunPlan(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise DataError(str(path), f"is not a run plan ({error})", "start the run again") from error


def plan_run(config: Config, manifest: Manifest, run_id: str, dataset: Path, models: Path) -> RunPlan:
    """Raises DataError when the dataset has no training rows or does not fit the recipe."""
    recipe = config.recipe
    if not manifest.rows("train"):
        raise DataError(str(dataset), "has no training rows", "give more input")
    if manifest.sequence_length != recipe.prepare.sequence_length:
        raise DataError(str(dataset), f"holds sequences of {manifest.sequence_length} tokens, "
                        f"prepare.sequence_length is {recipe.prepare.sequence_length}", "prepare the dataset again")
    per_epoch = steps_per_epoch(manifest.rows("train"), recipe.data.num_lanes, recipe.train.global_batch_samples)
    parameters = gpt_parameters(recipe.model, manifest.vocabulary_size, manifest.sequence_length)
    return RunPlan(
        run_id=run_id, dataset=str(dataset), models=str(models),
        steps=recipe.train.steps or (recipe.train.epochs or 1) * per_epoch, steps_per_epoch=per_epoch,
        parameters=parameters, tokens_per_step=recipe.train.global_batch_samples * manifest.sequence_length,
        memory_bytes=estimate_memory_bytes(recipe, parameters, manifest.vocabulary_size,
                                           config.platform.layout.micro_batch_samples))


def gpt_parameters(model: Model, vocabulary_size: int, sequence_length: int) -> int:
    """Number of trained values of the GPT in ``models/gpt.py``."""
    width = model.width
    norm = width * (2 if model.bias else 1)
    block = 12 * width * width + (8 * width if model.bias else 0) + 2 * norm
    embeddings = (vocabulary_size + sequence_length) * width + (0 if model.tied_embeddings else vocabulary_size * width)
    return embeddings + model.num_layers * block + norm


def estimate_memory_bytes(recipe: Recipe, parameters: int, vocabulary_size: int, micro_batch_samples: int) -> int:
    """Peak of weights, gradients, AdamW's two moments and one micro-batch's activations, in bytes.

    Activations: 34 values per token, layer and unit of width (attention without its score matrix), and three copies of
    the logits. Source: Korthikanti et al. 2022, section 4, counted in values instead of bytes of half precision.
    """
    tokens = micro_batch_samples * recipe.prepare.sequence_length
    activations = tokens * (recipe.model.num_layers * 17 * recipe.model.width + 3 * vocabulary_size)
    return FLOAT_BYTES * (4 * parameters + activations)
