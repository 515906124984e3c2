"""What an exported model's folder says of it, beside its weights.

Runs on: driver, executors and ranks (no torch).
Takes:   the folder of a model.
Gives:   ``described``: the recipe's section ``model`` and the task, of today's models and of the first ones; ``model_step``;
         ``trained_model``, which finds a run's.
"""

from __future__ import annotations

import json
from typing import Any

from pipelines.errors import ConfigError, DataError, SparkringError
from pipelines.lake.first_manifests import language_of
from pipelines.lake.paths import Lake
from pipelines.lake.store import Store
from pipelines.lake.stored_weights import INDEX_NAME, WEIGHTS_NAME, ModelFolder, stored_weights, weights_object
from pipelines.lake.task_facts import TaskFacts

DESCRIPTION_NAME = "sparkring.json"
MODELS = ("best", "last")  # of a run
FIRST_DESCRIPTION_NAME = "config.json"  # of language models, before there were other tasks


def trained_model(lake: Lake, run_id: str, which: str) -> Store:
    """
    Args:
        which: one of ``MODELS``.
    Raises:
        ConfigError: it is none of them. DataError: the run has no such model.
    """
    if which not in MODELS:
        raise ConfigError(SparkringError("--model", f"{which!r} is none of {', '.join(MODELS)}"))
    there = {name: files for name in MODELS if weights_object(files := lake.store.below(lake.model(run_id, name)))}
    if which not in there:
        raise DataError(f"--model {which}", f"run {run_id} has none in {lake.store.place(lake.model(run_id, which))}",
                        f"use --model {next(iter(there))}" if there else "train the run to its first evaluation")
    return there[which]


def described(files: ModelFolder) -> tuple[dict[str, Any], TaskFacts]:
    """The recipe's section ``model``, and the task.

    Raises:
        OSError, KeyError, TypeError, ValueError: it is no exported model.
    """
    if files.facts(DESCRIPTION_NAME) is not None:
        content = json.loads(files.read(DESCRIPTION_NAME))
        return content["model"], TaskFacts.of_json(content["task"])
    section = json.loads(files.read(FIRST_DESCRIPTION_NAME))
    sizes = {name: section.pop(name) for name in ("vocabulary_size", "sequence_length")}
    task = language_of(**sizes, end_of_text_id=section.pop("end_of_text_id"), tokenizer_sha256="")
    return section, TaskFacts.of_json(task)


def part_name(step: str, index: int, count: int) -> str:
    """Of one of several files: another one after another step, so that none is replaced while an index names it."""
    return f"model-{step}-{index + 1:05}-of-{count:05}.safetensors"


def weights_bytes(files: Store) -> int:
    """0 where there is no model."""
    if weights_object(files) == INDEX_NAME:
        return int(json.loads(files.read(INDEX_NAME))["metadata"]["total_size"])
    facts = files.facts(WEIGHTS_NAME)
    return 0 if facts is None else facts.bytes


def model_step(files: Store) -> int:
    """The training step after which the weights were exported, which they say themselves.

    Raises:
        OSError, KeyError, ValueError: it is no exported model. CheckpointError: its weights are damaged.
    """
    return int(stored_weights(files).notes["step"])
