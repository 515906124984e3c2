"""The model that a recipe names, whole or in part, with its initial values.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   recipe section ``model``, sizes from the dataset, the seed.
Gives:   a ``LayeredModel``, the same on every rank and layout.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol, cast

from pipelines.config.models import Model
from pipelines.models.architectures import module_of
from pipelines.models.dropout import draw_by_sample
from pipelines.models.layered import LayeredModel

Sizes = Mapping[str, int]


class _ModelModule(Protocol):
    """What an architecture's ``model.py`` holds, see ``architectures.py``."""

    def sketch(self, settings: Any, seed: int, **sizes: int) -> LayeredModel: ...

    def fill(self, model: LayeredModel, settings: Any, seed: int, layers: Collection[str]) -> dict[str, str] | None: ...


def build_model(settings: Model, sizes: Sizes, seed: int) -> LayeredModel:
    """The whole model with its initial values.

    Raises:
        ConfigError: see ``sketch_model``.
    """
    model = sketch_model(settings, sizes, seed)
    fill_model(model, settings, seed, model.layers)
    return model


def sketch_model(settings: Model, sizes: Sizes, seed: int) -> LayeredModel:
    """The model before ``fill_model``: one of this project has no memory yet, so that a rank can fill the layers that it keeps.

    Raises:
        ConfigError: what a user's factory did wrong.
    """
    return draw_by_sample(_module_of(settings).sketch(settings, seed, **sizes), seed)


def fill_model(model: LayeredModel, settings: Model, seed: int, layers: Collection[str]) -> dict[str, str]:
    """Gives some layers of a sketch their initial values, the same whichever layers are filled.

    Returns:
        Of values that were read from files: hashes by name, as in ``ModelFacts.code``.
    """
    return _module_of(settings).fill(model, settings, seed, layers) or {}


def _module_of(settings: Model) -> _ModelModule:
    return cast(_ModelModule, module_of(settings, "model"))
