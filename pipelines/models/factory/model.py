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

from pipelines.errors import ConfigError, SparkringError
from pipelines.models.factory.settings import FactoryModel
from pipelines.models.layered import LayeredModel
from pipelines.models.weights import TYPES

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
            raise _refusal(settings.factory, f"failed: {error}", f"it is called with {', '.join(sizes)} and "
                          f"the section's other keys ({', '.join(settings.options) or 'none'})") from error
    if not isinstance(model, LayeredModel):
        raise _refusal(settings.factory, f"returned {type(model).__name__}, not a layered model",
                      "return pipelines.models.layered.LayeredModel([(name, layer), ...])")
    _check_state(settings.factory, model)
    return model


def fill(model: LayeredModel, settings: FactoryModel, seed: int, layers: Collection[str]) -> None:
    """Nothing: it has its values already."""


def _imported(factory: str) -> Any:
    module_name, _, name = factory.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except ImportError as error:
        raise _refusal(factory, f"cannot be imported: {error}", "install the package where the ranks run, put its folder "
                      "on PYTHONPATH, or give it to spark-submit with --py-files") from error
    except AttributeError as error:
        raise _refusal(factory, f"{module_name} has no {name}", "name a function as package.module:function") from error


def _check_state(factory: str, model: LayeredModel) -> None:
    """Refuses what an exported model could not hold. Buffers that training changes are refused by ``train/probe.py``."""
    state = dict(model.named_state())
    if others := sorted(model.state_dict().keys() - state.keys()):
        raise _refusal(factory, f"keeps state that is neither a parameter nor a buffer ({', '.join(others[:3])})",
                       "register it as a buffer")
    for name, value in state.items():
        if value.dtype not in TYPES or value.layout != torch.strided:
            raise _refusal(factory, f"has {name} of type {value.dtype} ({value.layout}), which an exported model cannot hold",
                           "of a constant that the code makes again, use register_buffer(..., persistent=False)")


def _refusal(factory: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError(SparkringError(PLACE, f"{factory} {problem}", remedy))
