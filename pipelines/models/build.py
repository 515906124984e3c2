"""The model that a recipe names, whole and with its initial weights.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   recipe section ``model``, sizes from the dataset, the seed.
Gives:   a ``LayeredModel``, the same on every rank and layout; ``ConfigError`` saying what a factory did wrong.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

import torch

from pipelines.config.recipe import FactoryModel, GptModel
from pipelines.errors import ConfigError, SparkringError
from pipelines.models.gpt.model import fill_gpt, sketch_gpt
from pipelines.models.layered import LayeredModel

PLACE = "model.factory"


def build_model(settings: GptModel | FactoryModel, vocabulary_size: int, sequence_length: int, seed: int) -> LayeredModel:
    """The whole model with its initial weights.

    Raises:
        ConfigError: see ``sketch_model``.
    """
    model = sketch_model(settings, vocabulary_size, sequence_length, seed)
    fill_model(model, settings, seed, model.layers)
    return model


def sketch_model(settings: GptModel | FactoryModel, vocabulary_size: int, sequence_length: int, seed: int) -> LayeredModel:
    """The model before ``fill_model``: a GPT has no memory yet, so that a rank can fill the layers that it keeps.

    A factory's model is whole from the start: its code draws its initial weights in an order of its own, from torch's
    global generator, which is seeded here and restored afterwards.

    Raises:
        ConfigError: the factory cannot be imported or called, or what it returned cannot be trained as layers.
    """
    if isinstance(settings, GptModel):
        return sketch_gpt(settings, vocabulary_size, sequence_length)
    function = _imported(settings.factory)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = function(vocabulary_size=vocabulary_size, sequence_length=sequence_length, **settings.options)
        except (TypeError, ValueError) as error:
            raise _refusal(settings.factory, f"failed: {error}", "it is called with vocabulary_size, sequence_length and "
                           f"the section's other keys ({', '.join(settings.options) or 'none'})") from error
    if not isinstance(model, LayeredModel):
        raise _refusal(settings.factory, f"returned {type(model).__name__}, not a layered model",
                       "return pipelines.models.layered.LayeredModel([(name, layer), ...])")
    _check_buffers(settings.factory, model)
    return model


def fill_model(model: LayeredModel, settings: GptModel | FactoryModel, seed: int, layers: Collection[str]) -> None:
    """Gives some layers of a sketch their initial weights, the same whichever layers are filled."""
    if isinstance(settings, GptModel):
        fill_gpt(model, settings, seed, layers)


def _imported(factory: str) -> Any:
    module_name, _, name = factory.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except ImportError as error:
        raise _refusal(factory, f"cannot be imported: {error}", "install the package where the ranks run, put its folder "
                       "on PYTHONPATH, or give it to spark-submit with --py-files") from error
    except AttributeError as error:
        raise _refusal(factory, f"{module_name} has no {name}", "name a function as package.module:function") from error


def _check_buffers(factory: str, model: LayeredModel) -> None:
    """Buffers that training changes (running statistics) would be lost on export and differ between ranks."""
    buffers = sorted(set(model.state_dict()) - {name for name, _ in model.named_parameters(remove_duplicate=False)})
    if buffers:
        raise _refusal(factory, f"keeps state beside its parameters ({', '.join(buffers[:3])})",
                       "use layers without running statistics (LayerNorm, GroupNorm), or "
                       "register_buffer(..., persistent=False) for constants")


def _refusal(factory: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError(SparkringError(PLACE, f"{factory} {problem}", remedy))
