"""The table of architectures: what becomes of each kind of model that a recipe can name.

Runs on: driver and ranks (no torch).
Takes:   recipe section ``model``.
Gives:   ``architecture_of``: the facts for planning, and where the model itself is, which only ranks load (``build.py``).

A further architecture is a folder here and a line in ``ARCHITECTURES``; its section of the recipe is in ``config/models.py``,
with the other settings. The folder holds

- ``facts.py``: a function ``(settings, task) -> ModelFacts``, without torch;
- ``model.py``: ``sketch(settings, seed, **sizes) -> LayeredModel``, the structure, best on the meta device, without memory; and
  ``fill(model, settings, seed, layers)``, which gives every parameter and buffer of some layers its initial values, the same
  whichever layers are filled.

``task`` is what the dataset's manifest says of its task (``TaskFacts``); its ``sizes`` are what the dataset decides of a model
(of text ``vocabulary_size`` and ``sequence_length``; of images ``channels``, ``height``, ``width`` and ``num_classes``), by
name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.config.models import Model
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.cnn.facts import cnn_facts
from pipelines.models.factory.facts import factory_facts
from pipelines.models.gpt.facts import gpt_facts
from pipelines.models.resnet.facts import resnet_facts
from pipelines.plan.model_facts import ModelFacts

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Architecture:
    """One kind of model."""

    task: str | None  # that it is for; None: any
    facts: Callable[[Any, TaskFacts], ModelFacts]
    model: str  # the module that holds ``sketch`` and ``fill``; by its name, since it imports torch


ARCHITECTURES = {
    "gpt": Architecture("language", gpt_facts, "pipelines.models.gpt.model"),
    "cnn": Architecture("classification", cnn_facts, "pipelines.models.cnn.model"),
    "resnet": Architecture("classification", resnet_facts, "pipelines.models.resnet.model"),
    "factory": Architecture(None, factory_facts, "pipelines.models.factory.model"),
}


def architecture_of(settings: Model) -> Architecture:
    return ARCHITECTURES[settings.kind]
