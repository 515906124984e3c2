"""An architecture: what its folder holds, and how its code is found.

Runs on: driver and ranks (no torch until a model is asked for).
Takes:   recipe section ``model``, whose kind names the folder (``config/models.py``).
Gives:   ``module_of``: the facts for planning; the model itself, which only ranks load (``build.py``).

A further architecture is a folder here and a line in ``ARCHITECTURES`` of ``config/models.py``. The folder holds

- ``settings.py``: ``SECTION``, the class of its section of the recipe, which says the task that it is for. It imports nothing of
  ours but ``config`` and ``errors``, since every command reads it;
- ``facts.py``: ``facts(settings, task) -> ModelFacts``, without torch;
- ``config_json.py``, of one that other libraries' folders are read of: ``ARCHITECTURE``, see ``foreign_config.py``;
- ``standard.py``, of a language model that other libraries know: ``standard(settings) -> Standard``, in their names;
- ``model.py``: ``sketch(settings, seed, **sizes) -> LayeredModel``, the structure, best on the meta device, without memory; and
  ``fill(model, settings, seed, layers)``, which gives every parameter and buffer of some layers its initial values, the same
  whichever layers are filled, and says the hashes of those that it has read from files.

``task`` is what the dataset's manifest says of its task (``TaskFacts``); its ``sizes`` are what the dataset decides of a model
(of text ``vocabulary_size`` and ``sequence_length``; of images ``channels``, ``height``, ``width`` and ``num_classes``), by
name.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pipelines.config.models import ARCHITECTURES, Model


def module_of(settings: Model, name: str) -> Any:
    """A module of the architecture's folder, such as ``facts``."""
    return import_module(f"{ARCHITECTURES[settings.kind]}.{name}")


def described_by(settings: Model) -> Model:
    """The section that says an architecture: the given one, or that of the folder that it names."""
    if settings.origin is None:
        return settings
    section: Model = module_of(settings, "opened").opened_folder(settings.origin).section
    return section
