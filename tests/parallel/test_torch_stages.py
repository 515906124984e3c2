"""What travels between the layers of a split model is found without running it."""

import pytest
import torch
from torch import nn

from pipelines.errors import ConfigError
from pipelines.models.build import build_model, sketch_model
from pipelines.models.gpt.settings import GptModel
from pipelines.models.layered import LayeredModel
from pipelines.parallel.replica.torch_stages import shapes_between
from tests.support.example_data import sizes
from tests.support.own_models import residual

WIDTH = 8


class Both(nn.Module):
    """A recurrent layer, attention and a convolution; holds a tensor that is neither a parameter nor a buffer."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.GRU(WIDTH, WIDTH, num_layers=2, dropout=0.1, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(2 * WIDTH, 2, dropout=0.1, batch_first=True)
        self.convolution = nn.Conv1d(2 * WIDTH, WIDTH, 3, stride=2)
        self.register_buffer("constant", torch.ones(WIDTH), persistent=False)
        self.plain = torch.ones(WIDTH)

    def forward(self, hidden_BTD):
        hidden_BTD = self.recurrent(hidden_BTD)[0]
        hidden_BTD = self.attention(hidden_BTD, hidden_BTD, hidden_BTD)[0]
        return self.convolution(hidden_BTD.transpose(1, 2)).transpose(1, 2) * self.constant * self.plain


def mixed(**_):
    return LayeredModel([("table", nn.Embedding(32, WIDTH)), ("both", Both()), ("logits", nn.Linear(WIDTH, 32))])


MODELS = {"gpt": lambda: build_model(GptModel(num_layers=2, num_heads=2, width=16), sizes(32, 16), seed=0),
          "tuples": lambda: residual(32, 16), "recurrent, attention and convolution": mixed}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_the_shapes_between_layers_are_those_of_a_run(name, precision):
    model = MODELS[name]()
    inputs = torch.zeros(3, 16, dtype=torch.int64)
    found = shapes_between(model, inputs, precision)
    value = inputs
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        for i, layer in enumerate([nn.Identity(), *model.layers.values()]):
            value = layer(value)
            real = value if isinstance(value, tuple) else (value,)
            assert [(t.shape, t.stride(), t.dtype) for t in found[i]] == [(t.shape, t.stride(), t.dtype) for t in real]
            assert all(t.is_meta for t in found[i])
    assert len(found) == len(model.layers) + 1


def test_neither_memory_nor_work_is_spent_on_finding_them():
    terabytes = sketch_model(GptModel(num_layers=3, num_heads=2, width=200_000), sizes(32, 16), seed=0)
    assert [t.shape for (t,) in shapes_between(terabytes, torch.zeros(64, 16, dtype=torch.int64), "fp32")] == [
        (64, 16), *[(64, 16, 200_000)] * 4, (64, 16, 32)]


class Choosing(nn.Module):
    def __init__(self, choose):
        super().__init__()
        self._choose = choose

    def forward(self, hidden_BTD):
        return self._choose(hidden_BTD)


@pytest.mark.parametrize("choose", [lambda x: x[x[..., 0] > 0], lambda x: x[:, : int(x.sum()) + 3],
                                    lambda x: x if x.sum() > 0 else x[:1]],
                         ids=["rows that pass a test", "as many as a value says", "one of two ways"])
def test_a_layer_whose_shapes_depend_on_the_data_is_refused_by_name(choose):
    model = LayeredModel([("table", nn.Embedding(32, WIDTH)), ("choosing", Choosing(choose)), ("logits", nn.Linear(WIDTH, 32))])
    with pytest.raises(ConfigError, match=r"layer choosing: .*depend on the data .*layout.num_segments: 1"):
        shapes_between(model, torch.zeros(3, 16, dtype=torch.int64), "fp32")
