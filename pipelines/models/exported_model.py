"""A trained model out of its folder, which needs neither Spark nor Horovod.

Runs on: anywhere with torch; ranks, which take only the layers that they keep.
Takes:   a folder that ``export.py`` has written.
Gives:   ``load_model``, ``ExportedModel``; ``fill_trained``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError

from pipelines.config.models import Model
from pipelines.errors import CheckpointError
from pipelines.lake.exported import described
from pipelines.lake.stored_weights import differing, stored_weights
from pipelines.lake.stores import Store, store_at
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.build import fill_model, sketch_model
from pipelines.models.layered import LayeredModel
from pipelines.models.opened_weights import Weights, opened_weights
from pipelines.models.standard_model import NAMES_NOTE, Standard, standard_of
from pipelines.models.translation import Specs, own_value, standard_specs
from pipelines.models.weight_slices import parts_of, read_layers


@dataclass(frozen=True)
class ExportedModel:
    """A trained model, whole, in evaluation mode."""

    model: LayeredModel
    settings: Model
    task: TaskFacts  # what it was trained for
    files: Store  # its folder
    notes: dict[str, str]  # step, validation loss, run


def load_model(folder: str | Path | Store, *, factory: str | None = None) -> ExportedModel:
    """Loads an exported folder. Its parameters and buffers are the file itself, mapped into memory: the processes of a machine
    share it, and nothing is read before it is used. What is written to them stays with the process.

    Args:
        folder: its path or URL, or a store of the files.
        factory: for a model of your own, its ``model.factory`` again: a folder of weights alone never decides which
            code is imported.
    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
        ConfigError: the factory cannot be used.
    """
    files = store_at(folder) if isinstance(folder, str | Path) else folder
    try:
        section, task = described(files)
        settings: Model = TypeAdapter(Model).validate_python(section)
        if settings.origin is not None:
            raise ValueError(f"its description leads to {settings.origin}")
        if settings.users_factory not in (None, factory):
            raise CheckpointError(files.place(), f"was made by the factory {settings.users_factory}",
                                  f"load it with factory={settings.users_factory!r} if you trust it")
        model = sketch_model(settings, task.sizes, seed=0)
        specs = model.specs()
        with opened_weights(files) as weights:
            get = own_values(weights, settings, specs)
            state = {name: get(name) for name in specs}
        model.adopt(state)
        if any(value.is_meta for _, value in model.named_tensors()):  # constants that are computed, not exported
            fill_model(model, settings, 0, model.layers)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(files.place(), f"is not an exported model ({error})", "export it again") from error
    return ExportedModel(model.eval(), settings, task, files, weights.notes)


def fill_trained(model: LayeredModel, settings: Model, files: Store, layers: Collection[str]) -> None:
    """Gives some layers of a sketch the values of an exported model: a rank holds no more than it keeps.

    Raises:
        CheckpointError: the file is missing, damaged, or is of another model.
    """
    try:
        stored = stored_weights(files)
        parts = parts_of(_names_of(settings, stored.notes), model.specs(), stored.tensors)
        read_layers(model, layers, parts, files)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(files.place(), f"is not an exported model of these settings ({error})", "train it again") from error
    fill_model(model, settings, 0, layers)  # constants that are computed, not exported


def own_values(weights: Weights, settings: Model, specs: Specs) -> Callable[[str], torch.Tensor]:
    """What gives each parameter and buffer by our name, whatever the files call it.

    Raises:
        ValueError: there are others than the model's.
    """
    standard = _names_of(settings, weights.notes)
    expected = specs if standard is None else standard_specs(standard, specs)
    if expected.keys() != set(weights.names):
        raise ValueError(differing(expected.keys(), weights.names))
    return weights.get if standard is None else own_value(standard, specs, weights.get)


def _names_of(settings: Model, notes: Mapping[str, str]) -> Standard | None:
    """Whose names the files have; None: ours."""
    return standard_of(settings) if NAMES_NOTE in notes else None
