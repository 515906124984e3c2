"""A trained model as a folder that needs neither Spark nor Horovod.

Runs on: rank 0 (save), anywhere with torch (load).
Takes:   parameters and buffers by name, the recipe section, what the dataset's manifest says of its task.
Gives:   ``model.safetensors`` (weights, step, losses), ``sparkring.json`` (the section and the task), and the files of the
         dataset that the task needs, such as ``tokenizer.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from pipelines.config.models import Model
from pipelines.errors import CheckpointError
from pipelines.lake.first_manifests import language_of
from pipelines.lake.paths import WEIGHTS_NAME
from pipelines.lake.store import FolderStore, Store
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.build import build_model
from pipelines.models.layered import LayeredModel
from pipelines.models.weights import write_weights

DESCRIPTION_NAME = "sparkring.json"
FIRST_DESCRIPTION_NAME = "config.json"  # of language models, before there were other tasks


def save_model(model: Store, state: Iterable[tuple[str, torch.Tensor]],
               specs: Mapping[str, tuple[torch.Size, torch.dtype]], settings: Model, *, task: TaskFacts,
               files: Mapping[str, bytes], notes: dict[str, str]) -> None:
    """Writes the model, or replaces its weights, which are written last: at any moment one whole
    model is there.

    Args:
        state: every parameter and persistent buffer once, on the CPU; taken and written one at a time, so that a model that
            no rank could hold can be saved. specs: name to shape and type, in the order of ``state``.
        task: what the model is for. files: content of further ones, by name.
        notes: short ones, kept in the header of the weights file, such as step and validation loss.
    Raises:
        StorageError: it cannot be written.
    """
    described = json.dumps({"model": settings.model_dump(mode="json"), "task": asdict(task)}, indent=2).encode()
    for name, content in {DESCRIPTION_NAME: described, **files}.items():
        if model.facts(name) is None:  # constant within a run, so only the weights are ever replaced
            model.put(name, content)
    with model.writer(WEIGHTS_NAME) as file:
        write_weights(file, state, specs, notes)


@dataclass(frozen=True)
class ExportedModel:
    """A trained model, whole, in evaluation mode."""

    model: LayeredModel
    settings: Model
    task: TaskFacts  # what it was trained for
    files: Store  # its folder
    notes: dict[str, str]  # step, validation loss, run


def load_model(folder: str | Path, *, factory: str | None = None) -> ExportedModel:
    """Loads an exported folder.

    Args:
        factory: for a model of your own, its ``model.factory`` again: a folder of weights alone never decides which
            code is imported.
    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
        ConfigError: the factory cannot be used.
    """
    files = FolderStore(Path(folder).absolute())
    try:
        section, task = _described(files)
        settings: Model = TypeAdapter(Model).validate_python(section)
        if settings.users_factory not in (None, factory):
            raise CheckpointError(str(folder), f"was made by the factory {settings.users_factory}",
                                  f"load it with factory={settings.users_factory!r} if you trust it")
        model = build_model(settings, task.sizes, seed=0)
        with safe_open(files.local_path(WEIGHTS_NAME), framework="pt") as weights:
            notes = weights.metadata() or {}
            model.load_unique_state({name: weights.get_tensor(name) for name in weights.keys()})  # noqa: SIM118
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(str(folder), f"is not an exported model ({error})", "export it again") from error
    return ExportedModel(model.eval(), settings, task, files, notes)


def _described(files: Store) -> tuple[dict[str, Any], TaskFacts]:
    """The recipe's section ``model``, and the task."""
    if files.facts(DESCRIPTION_NAME) is not None:
        content = json.loads(files.read(DESCRIPTION_NAME))
        return content["model"], TaskFacts.of_json(content["task"])
    section = json.loads(files.read(FIRST_DESCRIPTION_NAME))
    sizes = {name: section.pop(name) for name in ("vocabulary_size", "sequence_length")}
    task = language_of(**sizes, end_of_text_id=section.pop("end_of_text_id"), tokenizer_sha256="")
    return section, TaskFacts.of_json(task)
