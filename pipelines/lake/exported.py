"""What an exported model's folder says of it, beside its weights.

Runs on: driver, executors and ranks (no torch).
Takes:   the folder of a model.
Gives:   ``described``: the recipe's section ``model`` and the task, of today's models and of the first ones; ``model_step``.
"""

from __future__ import annotations

import json
from typing import Any

from pipelines.lake.first_manifests import language_of
from pipelines.lake.paths import WEIGHTS_NAME
from pipelines.lake.store import Store
from pipelines.lake.task_facts import TaskFacts

DESCRIPTION_NAME = "sparkring.json"
LONGEST_HEADER = 100 * 1000**2  # bytes, as safetensors has it
FIRST_DESCRIPTION_NAME = "config.json"  # of language models, before there were other tasks


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


def model_step(files: Store) -> int:
    """The training step after which the weights were exported, from their file's header.

    Raises:
        OSError, KeyError, TypeError, ValueError: it is no exported model.
    """
    with files.open(WEIGHTS_NAME) as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        return int(json.loads(file.read(length))["__metadata__"]["step"])
