"""Looks at a model that a factory makes, without training it: ``python -m pipelines.train.probe < ORDER``.

Runs on: driver, as a process of its own.
Takes:   JSON on standard input: recipe section ``model``, ``vocabulary_size``, ``sequence_length``.
Gives:   ``ModelFacts`` as the last line of standard output; an error's one line and its exit code otherwise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from pipelines.config.recipe import Model
from pipelines.errors import EXIT_OK, ConfigError, SparkringError
from pipelines.models.build import build_model, dropout_layers
from pipelines.models.gpt import token_loss_sum
from pipelines.models.layered import LayeredModel
from pipelines.train.facts import LayerFacts, ModelFacts


def facts_of(model: LayeredModel, sequence_length: int) -> ModelFacts:
    """Runs one sample through the model and notes what each layer keeps for its backward.

    Raises:
        ConfigError: a layer does not take what the one before it returns, or the last one returns no logits.
    """
    seen: set[nn.Parameter] = set()
    own_storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    value: Any = torch.zeros(1, sequence_length, dtype=torch.int64)
    layers: list[LayerFacts] = []
    for name, layer in model.layers.items():
        parameters = set(layer.parameters())
        saved: dict[int, int] = {}

        def note(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own_storages:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, _unchanged):
            try:
                value = layer(_leaves(value))
                if len(layers) == len(model.layers) - 1:
                    token_loss_sum(value, torch.zeros(1, sequence_length, dtype=torch.int64))
            except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
                raise ConfigError(SparkringError(
                    f"model.factory, layer {name}", f"failed on a sample: {str(error).splitlines()[0]}",
                    "each layer takes what the one before it returns; the first takes tokens [B, T], the last returns "
                    "logits [B, T, vocabulary_size]")) from error
        new = sum(p.numel() for p in parameters - seen)
        layers.append(LayerFacts(
            name, new, sum(p.numel() for p in parameters & seen), sum(saved.values()),
            sum(t.numel() * t.element_size() for t in _tensors(value)), 6.0 * sum(p.numel() for p in parameters)
            * sequence_length))
        seen |= parameters
    return ModelFacts(tuple(layers), tuple(dropout_layers(model)), sketched=False)


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _tensors(value: Any) -> list[Tensor]:
    return [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, Tensor)]


def _leaves(value: Any) -> Any:
    detach: Callable[[Tensor], Tensor] = lambda t: t.detach().requires_grad_(t.is_floating_point())  # noqa: E731
    return tuple(map(detach, value)) if isinstance(value, tuple) else detach(value)


def main() -> int:
    order = json.loads(sys.stdin.read())
    try:
        model = build_model(TypeAdapter(Model).validate_python(order["model"]), order["vocabulary_size"],
                            order["sequence_length"], seed=0)
        print(facts_of(model, order["sequence_length"]).to_json())
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
