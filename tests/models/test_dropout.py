"""Dropout by sample: what a sample loses is its own, also where forward is run again, and nothing else is."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pipelines.errors import ConfigError
from pipelines.models.dropout import SampleDropout, draw_by_sample
from pipelines.models.layered import LayeredModel, evaluation_mode

IDS = torch.tensor([4, 9, 2, 7])


class Calls(nn.Module):
    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, hidden):
        return self.function(self, hidden)


def losing(module, seed=3):
    return draw_by_sample(LayeredModel([("layer", module)]), seed)


def run(model, ids=IDS, epoch=1, shape=(64, 50)):
    model.current.at(epoch, ids)
    return model(torch.ones(len(ids), *shape))


@pytest.mark.parametrize("module", [nn.Dropout(0.25), nn.Dropout1d(0.25)], ids=lambda module: type(module).__name__)
def test_a_sample_loses_the_same_alone_and_in_any_order(module):
    model = losing(Calls(lambda self, x: self.lose(x), lose=module))
    together = run(model)
    assert torch.equal(run(model, IDS.flip(0)).flip(0), together)
    assert all(torch.equal(run(model, IDS[i : i + 1])[0], together[i]) for i in range(4))
    assert not torch.equal(run(model, epoch=2), together)
    assert not torch.equal(run(losing(Calls(lambda self, x: self.lose(x), lose=nn.Dropout(0.25)), seed=4)), together)
    assert together.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (together == 0).float().mean().item() == pytest.approx(0.25, abs=0.07)
    if isinstance(module, nn.Dropout1d):
        assert (together == together[..., :1]).all()


def test_calls_of_one_module_draw_apart_and_evaluation_draws_nothing():
    model = losing(Calls(lambda self, x: torch.stack([self.lose(x), self.lose(x)], 1), lose=nn.Dropout(0.5)))
    both = run(model)
    assert not torch.equal(both[:, 0], both[:, 1])
    assert torch.equal(run(model), both)
    with evaluation_mode(model):
        assert (run(model) == 1).all()
    model.current.leave()
    assert not torch.equal(model(torch.ones(4, 64, 50)), model(torch.ones(4, 64, 50)))  # outside of training torch's own


def test_a_forward_that_backward_runs_again_draws_the_same():
    grads = []
    for again in (False, True):
        model = losing(Calls(lambda self, x, again=again: checkpoint(lambda y: self.lose(y) ** 2, x, use_reentrant=False)
                             if again else self.lose(x) ** 2, lose=nn.Dropout(0.5)))
        model.current.at(0, IDS)
        values = torch.full((4, 30), 2.0, requires_grad=True)
        model(values).sum().backward()
        grads.append(values.grad)
    assert torch.equal(*grads)


def test_a_tensor_whose_first_dimension_is_not_the_samples_and_a_shared_module_are_refused():
    model = losing(Calls(lambda self, x: self.lose(x.flatten(0, 1)), lose=nn.Dropout(0.5)))
    with pytest.raises(ValueError, match=r"dropout layer.lose takes \(256, 50\) in a micro-batch of 4 samples"):
        run(model)
    shared = Calls(lambda self, x: self.lose(x), lose=nn.Dropout(0.5))
    with pytest.raises(ConfigError, match=r"layers share a module with a dropout \(one.lose, two.lose\)"):
        draw_by_sample(LayeredModel([("one", shared), ("two", shared)]), 0)
    dropout = nn.Dropout(0.5)  # the layer itself shared: each place gets its own
    model = draw_by_sample(LayeredModel([("one", dropout), ("two", dropout)]), 0)
    assert [layer.place for layer in model.layers.values() if isinstance(layer, SampleDropout)] == ["one", "two"]
