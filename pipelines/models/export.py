"""A trained model as a folder that needs neither Spark nor Horovod, written.

Runs on: rank 0.
Takes:   parameters and buffers by name, the recipe section, what the dataset's manifest says of its task.
Gives:   ``model.safetensors`` (weights, step, losses), ``sparkring.json`` (the section and the task), and the files of the
         dataset that the task needs, such as ``tokenizer.json``; of a language model everything that transformers loads.
         ``exported_model.py`` loads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import torch

from pipelines.config.models import Model
from pipelines.lake.exported import DESCRIPTION_NAME
from pipelines.lake.store import Store
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.standard_files import standard_files
from pipelines.models.standard_model import NAMES_NOTE, standard_of
from pipelines.models.translation import Specs, standard_specs, standard_state
from pipelines.models.weights import save_weights


def save_model(model: Store, state: Iterable[tuple[str, torch.Tensor]], specs: Specs, settings: Model, *, task: TaskFacts,
               files: Mapping[str, bytes], notes: dict[str, str], lineage: Mapping[str, str] | None = None) -> None:
    """Writes the model, or replaces its weights, which are written last: at any moment one whole
    model is there.

    Args:
        state: every parameter and persistent buffer once, on the CPU; taken and written one at a time, so that a model that
            no rank could hold can be saved. specs: name to shape and type, in the order of ``state``.
        settings: the section that says the architecture itself (``architectures.described_by``).
        task: what the model is for. files: content of further ones, by name.
        notes: short ones, kept beside the weights, such as step and validation loss. lineage: what the model card says of
            where the model comes from, by what it is.
    Raises:
        StorageError: it cannot be written.
    """
    description = json.dumps({"model": settings.model_dump(mode="json"), "task": asdict(task)}, indent=2).encode()
    contents = {DESCRIPTION_NAME: description, **files}
    standard = standard_of(settings)
    if standard is not None:
        notes = {"format": "pt", NAMES_NOTE: standard.model_type, **notes}
        parameters = sum(shape.numel() for shape, _ in specs.values())
        contents |= standard_files(standard, task, files, parameters, {**(lineage or {}), **notes})
        state, specs = standard_state(standard, state), standard_specs(standard, specs)
    for name, content in contents.items():
        if model.facts(name) is None or model.read(name) != content:
            model.put(name, content)
    save_weights(model, state, specs, notes)
