"""The small convolutional network: the classic layers, its plan, and what it is refused for."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipelines.errors import ConfigError
from pipelines.models.build import build_model
from pipelines.models.cnn.facts import facts as cnn_facts
from pipelines.models.cnn.settings import CnnModel
from pipelines.models.facts import model_facts
from pipelines.train.probe import facts_of
from tests.support.example_data import example_config, language
from tests.support.image_data import patterns

CLASSIC = {"channels": 1, "height": 28, "width": 28, "num_classes": 10}


def test_it_is_the_well_known_network_layer_by_layer_and_value_by_value():
    model = build_model(CnnModel(), CLASSIC, seed=1).eval()
    state = model.unique_state()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "first.convolution.weight": (32, 1, 3, 3), "first.convolution.bias": (32,),
        "second.convolution.weight": (64, 32, 3, 3), "second.convolution.bias": (64,),
        "dense.project.weight": (128, 9216), "dense.project.bias": (128,), "logits.weight": (10, 128), "logits.bias": (10,)}
    w = list(state.values())
    images = torch.randn(2, 1, 28, 28)
    x = functional.relu(functional.conv2d(functional.relu(functional.conv2d(images, w[0], w[1])), w[2], w[3]))
    x = functional.relu(functional.linear(functional.max_pool2d(x, 2).flatten(1), w[4], w[5]))
    assert torch.allclose(model(images), functional.linear(x, w[6], w[7]), atol=1e-6)
    assert (model.get_submodule("second.dropout").p, model.get_submodule("dense.dropout").p) == (0.25, 0.5)


def test_initial_values_spread_as_torchs_own_do():
    ours = build_model(CnnModel(), CLASSIC, seed=1).get_parameter("second.convolution.weight")
    torchs = nn.Conv2d(32, 64, 3).weight
    assert ours.std().item() == pytest.approx(torchs.std().item(), rel=0.05)
    assert ours.abs().max().item() == pytest.approx(torchs.abs().max().item(), rel=0.01)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_planned_facts_are_those_that_a_look_at_it_finds(dropout):
    settings, task = CnnModel(image_dropout=dropout, dense_dropout=dropout), patterns(channels=3, size=20)
    planned, found = cnn_facts(settings, task), facts_of(build_model(settings, task.sizes, seed=0), task)
    entering_bytes = 4 * 3 * 20 * 20
    for one, other in zip(planned.layers, found.layers, strict=True):
        assert (one.name, one.parameters, one.output_bytes_per_sample) == (
            other.name, other.parameters, other.output_bytes_per_sample)
        # a look at one layer counts what enters it again, and of the images those of two samples
        assert 0 <= other.saved_bytes_per_sample - one.saved_bytes_per_sample <= entering_bytes
        entering_bytes = one.output_bytes_per_sample
    assert found.random_layers == found.mixing_layers == ()


def test_images_that_are_too_small_and_a_model_for_another_task_are_refused():
    with pytest.raises(ConfigError, match=r"cnn takes images of at least 6 x 6, the dataset's are 5 x 5"):
        cnn_facts(CnnModel(), patterns(size=5))
    with pytest.raises(ConfigError, match=r"gpt is a model for language, the dataset is for classification; use cnn or resnet"):
        model_facts(example_config().recipe, SimpleNamespace(task=patterns()))
    with pytest.raises(ConfigError, match=r"cnn is a model for classification, the dataset is for language; use "
                       "gpt or llama or qwen3 or from or factory"):
        model_facts(example_config(model={"kind": "cnn"}).recipe, SimpleNamespace(task=language(32, 16)))
