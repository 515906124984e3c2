"""What a model draws as it trains: noticed before launch, absent from evaluations, repeatable where it is allowed."""


import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pipelines.errors import ConfigError
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.launch.identity import training_hash
from pipelines.launch.local import prepare_run
from pipelines.models.build import build_model
from pipelines.models.dropout import draw_by_sample
from pipelines.models.facts import model_facts
from pipelines.models.layered import LayeredModel
from pipelines.train.probe import facts_of
from tests.support.example_data import example_config, language, publish_example, sizes
from tests.support.rank_processes import run_workers

DRAWING = {"factory": "tests.support.own_models:recurrent_with_dropout"}
WIDTH = 8
LANGUAGE = language(32, 16)
DATASET = SimpleNamespace(task=LANGUAGE)  # what a model is made for, of a manifest


class Attention(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.mix = nn.MultiheadAttention(WIDTH, 2, dropout=dropout, batch_first=True)

    def forward(self, hidden_BTD):
        return self.mix(hidden_BTD, hidden_BTD, hidden_BTD, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self, dropout, batch_first=True):
        super().__init__()
        self.mix = nn.GRU(WIDTH, WIDTH, num_layers=2, dropout=dropout, batch_first=batch_first)

    def forward(self, hidden_BTD):
        return self.mix(hidden_BTD)[0]


class Calls(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def forward(self, hidden_BTD):
        return self._function(hidden_BTD)


class Closed(nn.Module):
    """Two matrices of zeros around a dropout: neither outputs nor gradients show what was drawn."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        for each in (self.first, self.second):
            nn.init.zeros_(each.weight)

    def forward(self, hidden_BTD):
        return hidden_BTD + self.second(functional.dropout(self.first(hidden_BTD), 0.5, self.training))


def noisy_with(generator):
    return Calls(lambda x: x + torch.from_numpy(generator.normal(size=x.shape)).float())


DRAWING_LAYERS = {
    "a GRU's dropout": lambda: Recurrent(0.1),
    "attention's dropout": lambda: Attention(0.1),
    "functional dropout": lambda: Calls(lambda x: functional.dropout(x, 0.1)),
    "torch's noise": lambda: Calls(lambda x: x + torch.randn_like(x)),
    "noise of a generator of its own": lambda: noisy_with(np.random.default_rng(0)),
    "numpy's noise": lambda: noisy_with(np.random),
    "a layer that is hardly ever left out": lambda: Calls(lambda x: x * 0 if random.random() < 1e-9 else x),
    "dropout between matrices of zeros": Closed,
}
STILL_LAYERS = {"dropout of nothing": lambda: nn.Dropout(0.0), "dropout by sample": lambda: nn.Dropout(0.5),
                "dropout of channels by sample": lambda: Calls(nn.Dropout1d(0.5)), "a GRU": lambda: Recurrent(0.0),
                "attention": lambda: Attention(0.0), "normalisation": lambda: nn.LayerNorm(WIDTH)}


def looked_at(layer):
    """The facts of a model with this layer in its middle."""
    torch.manual_seed(0)
    return facts_of(draw_by_sample(LayeredModel([("table", nn.Embedding(32, WIDTH, padding_idx=0)), ("middle", layer),
                                                 ("logits", nn.Linear(WIDTH, 32))]), seed=0), LANGUAGE)


def random_layers(layer):
    return looked_at(layer).random_layers


@pytest.mark.parametrize("name", DRAWING_LAYERS)
def test_a_layer_that_draws_is_found(name):
    assert random_layers(DRAWING_LAYERS[name]()) == ("middle",)


@pytest.mark.parametrize("name", STILL_LAYERS)
def test_a_layer_that_draws_nothing_is_not_blamed(name):
    assert random_layers(STILL_LAYERS[name]()) == ()


MIXING_LAYERS = {
    "normalisation over the batch": lambda: Calls(nn.BatchNorm1d(16, track_running_stats=False)),
    "a sequence taken for the batch": lambda: Recurrent(0.0, batch_first=False),
    "centred by the batch": lambda: Calls(lambda x: x - x.mean(0, keepdim=True))}


@pytest.mark.parametrize("name", MIXING_LAYERS)
def test_a_layer_that_mixes_the_samples_of_a_micro_batch_is_found(name):
    assert looked_at(MIXING_LAYERS[name]()).mixing_layers == ("middle",)


@pytest.mark.parametrize("name", STILL_LAYERS)
def test_a_layer_that_keeps_samples_apart_is_not_blamed(name):
    assert looked_at(STILL_LAYERS[name]()).mixing_layers == ()


@pytest.mark.processes
def test_a_model_that_mixes_samples_is_refused_unless_the_law_is_given_up():
    recipe = {"model": {"factory": "tests.support.own_models:mixing"}}
    with pytest.raises(ConfigError, match=r"layers mixed of tests.support.own_models:mixing give a sample another result"):
        model_facts(example_config(**recipe).recipe, DATASET)
    assert model_facts(example_config(**recipe, train__same_on_any_layout=False).recipe, DATASET).mixing_layers == ("mixed",)


def test_the_gpt_draws_nothing_and_a_look_at_a_model_leaves_its_mode_and_no_gradient():
    settings = example_config().recipe.model
    model = build_model(settings, sizes(32, 16), seed=0)
    modes = [module.training for module in model.modules()]
    assert facts_of(model, LANGUAGE).random_layers == ()
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("num_replicas", "num_segments"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.processes
def test_a_model_that_draws_is_refused_before_launch_on_every_layout(tmp_path, num_replicas, num_segments):
    lake = Lake.at(tmp_path)
    config = example_config(model=DRAWING, layout__num_replicas=num_replicas, layout__num_segments=num_segments)
    with pytest.raises(ConfigError, match=r"layers first, second .* depend on the layout; .*train.same_on_any_layout: false"):
        prepare_run(lake, config, publish_example(lake))


@pytest.mark.processes
def test_giving_the_law_up_makes_another_run_and_keeping_it_leaves_ids_as_they_were():
    kept, given_up = (example_config(task__sample_tokens=8, **change).recipe
                      for change in ({}, {"train__same_on_any_layout": False}))
    assert training_hash(kept, "v1", {}) != training_hash(given_up, "v1", {})
    assert training_hash(kept, "v1", {}) == "f8ee6f98"  # another id would train everything again: see SETTINGS_ADDED_LATER
    assert model_facts(example_config(model=DRAWING, train__same_on_any_layout=False).recipe, DATASET).random_layers == (
        "first", "second")




def trained(folder, num_replicas, num_segments, **overrides):
    """Losses of steps and of evaluations."""
    lake = Lake.at(folder)
    config = example_config(model=DRAWING, train__same_on_any_layout=False, layout__num_replicas=num_replicas,
                            layout__num_segments=num_segments, layout__micro_batch_samples=2, **overrides)
    run = prepare_run(lake, config, publish_example(lake))
    run_workers(run)
    records = RecordTail(run.live(0).record(0)).new_records()
    return [[record["loss"] for record in records if record["kind"] == kind] for kind in ("step", "evaluation")]


@pytest.mark.processes
def test_an_evaluation_draws_nothing_whole_and_split_and_training_goes_on_drawing(tmp_path):
    evaluations = []
    for num_segments in (1, 2):
        steps, losses = trained(tmp_path / str(num_segments), 1, num_segments, optimizer__learning_rate=1e-30,
                                train__evaluate_every_steps=1, train__steps=6, data__shuffle=False)
        assert losses == [losses[0]] * 6  # the weights do not change
        per_epoch = 5
        assert steps[0] != steps[per_epoch]  # the same samples again, another draw
        evaluations.append(losses[0])
    assert evaluations[0] == pytest.approx(evaluations[1], rel=1e-6)


@pytest.mark.processes
def test_where_the_law_is_given_up_the_same_command_on_the_same_layout_gives_the_same_twice(tmp_path):
    first, again = (trained(tmp_path / name, 2, 1) for name in ("first", "again"))
    assert first == again
    alone, _ = trained(tmp_path / "alone", 1, 1)
    assert alone[0] != pytest.approx(first[0][0], rel=1e-4)  # each rank draws for itself: the law is indeed given up
