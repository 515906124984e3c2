"""Looks at a model that a factory makes, without training it: ``python -m pipelines.train.probe < ORDER``.

Runs on: driver, as a process of its own.
Takes:   JSON on standard input: recipe section ``model``, and the dataset's ``TaskFacts``.
Gives:   ``ModelFacts`` as the last line of standard output; an error's one line and its exit code otherwise.

Each layer is run twice on the same input with the same weights, forward and backward. One that gives another result the
second time, or moves a random generator of the process, draws random numbers: what it draws would depend on how samples
are spread over ranks and micro-batches. And each is run on two samples together and on each alone: one that gives a
sample another result then, such as a normalisation over the batch, mixes the samples of a micro-batch. One that has changed
its buffers afterwards, such as running statistics, is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import EXIT_OK, ConfigError, SparkringError
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.build import build_model
from pipelines.models.factory.own_code import code_of, own_files
from pipelines.models.factory.settings import FactoryModel
from pipelines.models.layered import LayeredModel, same_bits
from pipelines.models.matrices import matrices_of
from pipelines.parallel.replica.torch_stages import shapes_between
from pipelines.plan.model_facts import LayerFacts, ModelFacts
from pipelines.tasks.table import task_of
from pipelines.train.random_state import random_states, seed_everything

Run = Callable[[Any], Any]  # a layer as it runs in a training step of given samples


def _running(model: LayeredModel, layer: nn.Module, samples: list[int]) -> Run:
    def run(value: Any) -> Any:
        model.current.at(0, torch.tensor(samples))
        return layer(value)

    return run


def facts_of(model: LayeredModel, task_facts: TaskFacts) -> ModelFacts:
    """Runs one sample through the model, layer by layer, and notes what each keeps for its backward and whether it draws.

    Raises:
        ConfigError: a layer does not take what the one before it returns, or the loss what the last one does; or running it
            changes its buffers.
    """
    seen: set[nn.Parameter] = set()
    held = {value.untyped_storage().data_ptr() for _, value in model.named_tensors()}
    counted: set[int] = set()  # of ``held``, those of buffers that earlier layers have
    task = task_of(task_facts)
    pair: Any
    pair, targets = task.inputs_and_targets(task.example(2))
    inputs: Tensor = pair[:1]
    value: Any = inputs
    matrices = matrices_of(model)
    layers: list[LayerFacts] = []
    random_layers: list[str] = []
    mixing_layers: list[str] = []
    for name, layer in model.layers.items():
        parameters = set(layer.parameters())
        before = {own_name: value.detach().clone() for own_name, value in layer.named_buffers()}
        alone, second, both = (_running(model, layer, samples) for samples in ([0], [1], [0, 1]))
        try:
            loss = partial(task.loss_sum, targets=targets[:1]) if len(layers) == len(model.layers) - 1 else None
            result, saved_bytes = _saved(alone, _leaves(value), held, loss)
            together = both(_leaves(pair))
            if _draws(layer, alone, value):
                random_layers.append(name)
            elif _mixes((alone, second), pair, together):
                mixing_layers.append(name)
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            raise ConfigError(SparkringError(
                f"model.factory, layer {name}", f"failed on a sample: {str(error).splitlines()[0]}",
                f"each layer takes what the one before it returns; {task.model_takes_and_gives}")) from error
        _refuse_changed_buffers(name, layer, before)
        buffers = {b.untyped_storage().data_ptr(): b.untyped_storage().nbytes() for b in layer.buffers()}
        layers.append(LayerFacts(
            name, sum(p.numel() for p in parameters - seen), sum(p.numel() for p in parameters & seen), saved_bytes,
            sum(t.numel() * t.element_size() for t in _tensors(result)), 6.0 * sum(p.numel() for p in parameters)
            * task_facts.units_per_sample, sum(size for place, size in buffers.items() if place not in counted),
            sum(p.numel() for p in parameters - seen if p in matrices)))
        seen |= parameters
        counted |= buffers.keys()
        value, pair = result, together
    model.current.leave()
    return ModelFacts(tuple(layers), tuple(random_layers), tuple(mixing_layers), _unsplittable(model, inputs), sketched=False)


def _refuse_changed_buffers(name: str, layer: nn.Module, before: dict[str, Tensor]) -> None:
    """Raises ConfigError for buffers of a model's state that were changed by running the layer."""
    kept = layer.state_dict()
    changed = [own_name for own_name, value in before.items()
               if own_name in kept and (value.shape != kept[own_name].shape or not same_bits(value, kept[own_name]))]
    if changed:
        raise ConfigError(SparkringError(
            f"model.factory, layer {name}", f"changes its buffers as it trains ({', '.join(changed[:3])}), on each rank by that "
            "rank's own samples, so that the ranks would no longer have the same model",
            "use layers without running statistics (LayerNorm, GroupNorm); a buffer that is no part of the model is registered "
            "with persistent=False"))


def _unsplittable(model: LayeredModel, inputs: Tensor) -> str | None:
    try:
        shapes_between(model, inputs, "fp32")
    except ConfigError as error:
        return str(error)
    return None


def _saved(run: Run, value: Any, held: set[int], loss: Callable[[Any], Tensor] | None) -> tuple[Any, int]:
    """What the layer returns, and the bytes it keeps for its backward beside the storages that are ``held`` anyway; of the
    last layer, which has a ``loss``, that one's too."""
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, _unchanged):
        result = run(value)
        if loss is not None:
            loss(result)
    return result, sum(saved.values())


def _draws(layer: nn.Module, run: Run, value: Any) -> bool:
    """Whether the layer's result is another when it is run again."""
    runs, moved = [], False
    for seed in (0, 1):
        before = seed_everything(seed)
        runs.append(_outputs_and_gradients(layer, run, _leaves(value)))
        moved = moved or random_states() != before  # may be drawn and not show: rarely left out layers, weights of zero
    same = all(torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
               for one, other in zip(*runs, strict=True))
    return moved or not same


def _mixes(runs: tuple[Run, Run], pair: Any, together: Any) -> bool:
    """Whether one of two samples, run alone, comes out otherwise than it did together with the other."""
    return any(
        one.shape != other.shape or not torch.allclose(one.detach(), other, rtol=1e-3, equal_nan=True,
                                                       atol=1e-4 * float(other.abs().amax()))
        for index in (0, 1)
        for one, other in zip(_tensors(runs[index](_sample(pair, index))), _tensors(_sample(together, index)), strict=True)
        if other.numel() and other.is_floating_point())


def _sample(pair: Any, index: int) -> Any:
    """One sample of what a layer takes or returns for two, detached; what has no samples stays."""
    take: Callable[[Tensor], Tensor] = lambda t: (t[index : index + 1] if t.dim() and len(t) == 2 else t).detach()  # noqa: E731
    if isinstance(pair, tuple):
        return tuple(take(item) if isinstance(item, Tensor) else item for item in pair)
    return take(pair)


def _outputs_and_gradients(layer: nn.Module, run: Run, value: Any) -> list[Tensor]:
    """Of one forward and backward, with the same gradients of the outputs each time; the parameters' ``grad`` stays."""
    outputs = _tensors(run(value))
    sources = [t for t in (*_tensors(value), *layer.parameters()) if t.requires_grad]
    ends = [output for output in outputs if output.requires_grad]
    if not ends or not sources:
        return outputs
    arriving = [torch.cos(torch.arange(end.numel(), dtype=end.dtype)).view_as(end) for end in ends]
    gradients = torch.autograd.grad(ends, sources, arriving, allow_unused=True)
    return [*outputs, *(torch.zeros(()) if gradient is None else gradient for gradient in gradients)]


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _tensors(value: Any) -> list[Tensor]:
    return [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, Tensor)]


def _leaves(value: Any) -> Any:
    detach: Callable[[Tensor], Tensor] = lambda t: t.detach().requires_grad_(t.is_floating_point())  # noqa: E731
    return tuple(map(detach, value)) if isinstance(value, tuple) else detach(value)


def main() -> int:
    order = json.loads(sys.stdin.read())
    torch.set_num_threads(1)  # sums in one order, so that equal work gives equal bits
    try:
        settings = FactoryModel.model_validate(order["model"])
        task = TaskFacts.of_json(order["task"])
        model = build_model(settings, task.sizes, seed=0)
        facts = facts_of(model, task)
        facts = replace(facts, code=code_of(settings.factory, model), sources=tuple(
            (str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in own_files(settings.factory)))
        print(facts.to_json())
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
