"""What a layered model consists of: parameters and buffers alike, tied ones once."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipelines.lake.store import FolderStore
from pipelines.models.build import build_model
from pipelines.models.export import save_model
from pipelines.models.exported_model import load_model
from pipelines.models.factory.settings import FactoryModel
from pipelines.models.layered import LayeredModel, bits_of, runnable
from pipelines.prepare.text.language_rows import language_facts
from tests.support.example_data import sizes

CONSTANTS = FactoryModel(factory="tests.support.own_models:with_constant_buffers")
SIZES = sizes(26, 8)


class Masked(nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.out = nn.Linear(4, 4)
        self.register_buffer("mask", torch.ones(4, dtype=torch.int64))
        self.register_buffer("scratch", torch.ones(4), persistent=False)
        self.register_buffer("shared", shared)

    def forward(self, hidden_BTD):
        return self.out(hidden_BTD) * self.mask * self.scratch * self.shared


def sketched():
    with torch.device("meta"):
        shared = torch.ones(4)
        return LayeredModel([("first", Masked(shared)), ("second", Masked(shared))])


def test_a_layer_that_is_filled_has_its_buffers_too_and_a_shared_one_stays_shared():
    model, named = sketched(), []
    model.fill({"second"}, lambda name, value: (named.append(name), value.fill_(7)))
    assert sorted(named) == ["first.shared", "second.mask", "second.out.bias", "second.out.weight", "second.scratch"]
    assert model.layers["first"].shared is model.layers["second"].shared
    assert model.layers["first"].mask.is_meta and not model.layers["second"].mask.is_meta
    assert model.layers["second"].scratch.tolist() == [7.0] * 4
    assert model.layers["second"].mask.dtype == torch.int64
    assert "second.scratch" not in model.state_dict()  # it is still no part of the model's state
    assert "second.mask" in model.state_dict()


def test_the_state_is_parameters_and_persistent_buffers_each_tied_one_once():
    assert list(sketched().specs()) == ["first.out.weight", "first.out.bias", "second.out.weight", "second.out.bias",
                                        "first.mask", "first.shared", "second.mask"]
    assert sketched().specs()["second.mask"] == (torch.Size([4]), torch.int64)


def test_a_sketched_layer_with_buffers_can_be_run():
    assert runnable(sketched().layers["first"])(torch.ones(2, 3, 4)).shape == (2, 3, 4)


def test_loading_a_state_without_a_buffer_or_with_one_of_another_shape_is_refused():
    model = build_model(CONSTANTS, SIZES, seed=0)
    state = model.unique_state()
    with pytest.raises(KeyError, match=r"missing \['scaled_1.scale_D'\]"):
        model.load_unique_state({name: value for name, value in state.items() if name != "scaled_1.scale_D"})
    with pytest.raises(ValueError, match="scaled_1.scale_D: shape"):
        model.load_unique_state(state | {"scaled_1.scale_D": torch.ones(9)})


def test_buffers_of_every_type_and_shape_are_exported_and_loaded(tmp_path):
    model = build_model(CONSTANTS, SIZES, seed=5)
    state = model.unique_state()
    assert {"scaled_0.scale_D", "scaled_0.shared_W", "scaled_3.even_D", "scaled_3.version", "scaled_3.turns_D"} <= state.keys()
    assert not {"scaled_1.shared_W", "scaled_0.scratch_D"} & state.keys()
    save_model(FolderStore(tmp_path), state.items(), model.specs(), CONSTANTS,
               task=language_facts(**SIZES, end_of_text_id=0, tokenizer_sha256=""), files={}, notes={})
    saved = load_file(tmp_path / "model.safetensors")  # by its own reader
    assert saved.keys() == state.keys()
    loaded = load_model(tmp_path, factory=CONSTANTS.factory).model.unique_state()  # built with seed 0, and other values then
    assert not torch.equal(build_model(CONSTANTS, SIZES, seed=0).unique_state()["scaled_0.shared_W"], state["scaled_0.shared_W"])
    for name, value in state.items():
        assert saved[name].dtype == loaded[name].dtype == value.dtype, name
        assert saved[name].shape == loaded[name].shape == value.shape, name
        assert torch.equal(bits_of(saved[name]), bits_of(value)), name
        assert torch.equal(bits_of(loaded[name]), bits_of(value)), name
