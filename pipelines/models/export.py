"""A trained model as a folder that needs neither Spark nor Horovod.

Runs on: rank 0 (save), anywhere with torch (load).
Takes:   parameters and buffers by name, the recipe section, what the dataset's manifest says of its task.
Gives:   ``model.safetensors`` (weights, step, losses), ``sparkring.json`` (the section and the task), and the files of the
         dataset that the task needs, such as ``tokenizer.json``; of a language model everything that transformers loads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError

from pipelines.config.models import Model
from pipelines.errors import CheckpointError
from pipelines.lake.exported import DESCRIPTION_NAME, described
from pipelines.lake.store import FolderStore, Store
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.build import fill_model, sketch_model
from pipelines.models.layered import LayeredModel
from pipelines.models.opened_weights import Weights, opened_weights
from pipelines.models.standard_files import standard_files
from pipelines.models.standard_model import standard_of
from pipelines.models.translation import own_value, standard_specs, standard_state
from pipelines.models.weights import Specs, save_weights

NAMES_NOTE = "names"  # of weights: whose they are, where not ours


def save_model(model: Store, state: Iterable[tuple[str, torch.Tensor]], specs: Specs, settings: Model, *, task: TaskFacts,
               files: Mapping[str, bytes], notes: dict[str, str], lineage: Mapping[str, str] | None = None) -> None:
    """Writes the model, or replaces its weights, which are written last: at any moment one whole
    model is there.

    Args:
        state: every parameter and persistent buffer once, on the CPU; taken and written one at a time, so that a model that
            no rank could hold can be saved. specs: name to shape and type, in the order of ``state``.
        task: what the model is for. files: content of further ones, by name.
        notes: short ones, kept beside the weights, such as step and validation loss. lineage: what the model card says of
            where the model comes from, by what it is.
    Raises:
        StorageError: it cannot be written.
    """
    description = json.dumps({"model": settings.model_dump(mode="json"), "task": asdict(task)}, indent=2).encode()
    contents = {DESCRIPTION_NAME: description, **files}
    standard = standard_of(settings, task)
    if standard is not None:
        notes = {"format": "pt", NAMES_NOTE: standard.config["model_type"], **notes}
        parameters = sum(shape.numel() for shape, _ in specs.values())
        contents |= standard_files(standard, task, files, parameters, {**(lineage or {}), **notes})
        state, specs = standard_state(standard, state), standard_specs(standard, specs)
    for name, content in contents.items():
        if model.facts(name) is None or model.read(name) != content:
            model.put(name, content)
    save_weights(model, state, specs, notes)


@dataclass(frozen=True)
class ExportedModel:
    """A trained model, whole, in evaluation mode."""

    model: LayeredModel
    settings: Model
    task: TaskFacts  # what it was trained for
    files: Store  # its folder
    notes: dict[str, str]  # step, validation loss, run


def load_model(folder: str | Path, *, factory: str | None = None) -> ExportedModel:
    """Loads an exported folder. Its parameters and buffers are the file itself, mapped into memory: the processes of a machine
    share it, and nothing is read before it is used. What is written to them stays with the process.

    Args:
        factory: for a model of your own, its ``model.factory`` again: a folder of weights alone never decides which
            code is imported.
    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
        ConfigError: the factory cannot be used.
    """
    files = FolderStore(Path(folder).absolute())
    try:
        section, task = described(files)
        settings: Model = TypeAdapter(Model).validate_python(section)
        if settings.users_factory not in (None, factory):
            raise CheckpointError(str(folder), f"was made by the factory {settings.users_factory}",
                                  f"load it with factory={settings.users_factory!r} if you trust it")
        model = sketch_model(settings, task.sizes, seed=0)
        specs = model.specs()
        with opened_weights(files) as weights:
            get = own_values(weights, settings, task, specs)
            state = {name: get(name) for name in specs}
        model.adopt(state)
        if any(value.is_meta for _, value in model.named_tensors()):  # constants that are computed, not exported
            fill_model(model, settings, 0, model.layers)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(str(folder), f"is not an exported model ({error})", "export it again") from error
    return ExportedModel(model.eval(), settings, task, files, weights.notes)


def fill_trained(model: LayeredModel, settings: Model, files: Store, layers: Collection[str]) -> None:
    """Gives some layers of a sketch the values of an exported model: a rank reads no more than it holds.

    Raises:
        CheckpointError: the file is missing, damaged, or is of another model.
    """
    fill_model(model, settings, 0, layers)
    try:
        with opened_weights(files) as weights:
            model.load_filled(own_values(weights, settings, described(files)[1], model.specs()))
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(files.place(), f"is not an exported model of these settings ({error})", "train it again") from error


def own_values(weights: Weights, settings: Model, task: TaskFacts, specs: Specs) -> Callable[[str], torch.Tensor]:
    """What gives each parameter and buffer by our name, whatever the files call it.

    Raises:
        KeyError, ValueError: there are others than the model's.
    """
    standard = standard_of(settings, task) if NAMES_NOTE in weights.notes else None
    expected = specs if standard is None else standard_specs(standard, specs)
    if expected.keys() != set(weights.names):
        raise KeyError(f"parameters and buffers differ: missing {sorted(expected.keys() - set(weights.names))}, "
                       f"unknown {sorted(set(weights.names) - expected.keys())}")
    return weights.get if standard is None else own_value(standard, specs, weights.get)
