"""A model of the user's, as the function that the recipe names makes it.

Runs on: ranks, the driver's look at the model (``train/probe.py``), and anywhere an exported model is loaded.
Takes:   recipe section ``model``, sizes from the dataset, the seed.
Gives:   a ``LayeredModel``, the same on every rank and layout; ``ConfigError`` saying what the function did wrong.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

import torch

from pipelines.config.models import FactoryModel
from pipelines.errors import ConfigError, SparkringError
from pipelines.models.layered import LayeredModel

PLACE = "model.factory"


def sketch(settings: FactoryModel, seed: int, **sizes: int) -> LayeredModel:
    """Whole from the start, where the models of this project have no memory yet: the user's code draws its initial values
    in an order of its own, from torch's global generator, which is seeded here and restored afterwards.

    Raises:
        ConfigError: the factory cannot be imported or called, or what it returned cannot be trained as layers.
    """
    factory = _imported(settings.factory)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = factory(**sizes, **settings.options)
        except (TypeError, ValueError) as error:
            raise refusal(settings.factory, f"failed: {error}", f"it is called with {', '.join(sizes)} and "
                          f"the section's other keys ({', '.join(settings.options) or 'none'})") from error
    if not isinstance(model, LayeredModel):
        raise refusal(settings.factory, f"returned {type(model).__name__}, not a layered model",
                      "return pipelines.models.layered.LayeredModel([(name, layer), ...])")
    _check_buffers(settings.factory, model)
    return model


def fill(model: LayeredModel, settings: FactoryModel, seed: int, layers: Collection[str]) -> None:
    """Nothing: it has its values already."""


def _imported(factory: str) -> Any:
    module_name, _, name = factory.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except ImportError as error:
        raise refusal(factory, f"cannot be imported: {error}", "install the package where the ranks run, put its folder "
                      "on PYTHONPATH, or give it to spark-submit with --py-files") from error
    except AttributeError as error:
        raise refusal(factory, f"{module_name} has no {name}", "name a function as package.module:function") from error


def _check_buffers(factory: str, model: LayeredModel) -> None:
    """Buffers that training changes (running statistics) would be lost on export and differ between ranks."""
    buffers = sorted(set(model.state_dict()) - {name for name, _ in model.named_parameters(remove_duplicate=False)})
    if buffers:
        raise refusal(factory, f"keeps state beside its parameters ({', '.join(buffers[:3])})",
                      "use layers without running statistics (LayerNorm, GroupNorm), or "
                      "register_buffer(..., persistent=False) for constants")


def refusal(factory: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError(SparkringError(PLACE, f"{factory} {problem}", remedy))
