"""What an exported model's folder says of it, beside its weights.

Runs on: driver, executors and ranks (no torch).
Takes:   the folder of a model.
Gives:   ``described``: the recipe's section ``model`` and the task, of today's models and of the first ones; ``weights_object``,
         which makes a model visible; ``model_step``; ``trained_model``, which finds a run's.
"""

from __future__ import annotations

import json
from typing import Any

from pipelines.errors import ConfigError, DataError, SparkringError
from pipelines.lake.first_manifests import language_of
from pipelines.lake.paths import Lake
from pipelines.lake.store import Store
from pipelines.lake.task_facts import TaskFacts

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = f"{WEIGHTS_NAME}.index.json"  # of weights in several files, which it names
DESCRIPTION_NAME = "sparkring.json"
LONGEST_HEADER = 100 * 1000**2  # bytes, as safetensors has it
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


def described(files: Store) -> tuple[dict[str, Any], TaskFacts]:
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


def weights_object(files: Store) -> str | None:
    """What is written last of a model: its weights, or the index of several files of them. None: there is no model."""
    return next((name for name in (INDEX_NAME, WEIGHTS_NAME) if files.facts(name) is not None), None)


def weights_bytes(files: Store) -> int:
    """0 where there is no model."""
    if weights_object(files) == INDEX_NAME:
        return int(json.loads(files.read(INDEX_NAME))["metadata"]["total_size"])
    facts = files.facts(WEIGHTS_NAME)
    return 0 if facts is None else facts.bytes


def model_step(files: Store) -> int:
    """The training step after which the weights were exported, which they say themselves.

    Raises:
        OSError, KeyError, TypeError, ValueError: it is no exported model.
    """
    if weights_object(files) == INDEX_NAME:
        return int(json.loads(files.read(INDEX_NAME))["metadata"]["step"])
    with files.open(WEIGHTS_NAME) as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        return int(json.loads(file.read(length))["__metadata__"]["step"])
