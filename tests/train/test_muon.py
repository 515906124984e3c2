"""Muon: what it does to a matrix, what it leaves to AdamW."""

import pytest
import torch
from torch import nn

from pipelines.config.optimizers import AdamW, Muon
from pipelines.models.build import build_model
from pipelines.models.gpt.settings import GptModel
from pipelines.models.layered import LayeredModel
from pipelines.models.matrices import StackedLinear, matrices_of
from pipelines.models.qwen3.settings import Qwen3Model
from pipelines.train.muon import orthogonal
from pipelines.train.optimizer import build_optimizer
from tests.support.example_data import sizes


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 8, 24), (2, 24, 8), (1, 1, 5)])
def test_singular_vectors_stay_and_singular_values_become_about_1(shape):
    values_MRC = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for values, made in zip(values_MRC, orthogonal(values_MRC), strict=True):
        left, _, right = torch.linalg.svd(values, full_matrices=False)
        turned = left.mT @ made @ right.mT
        assert turned.diagonal().min() > 0.6 and turned.diagonal().max() < 1.3
        assert (turned - turned.diagonal().diag()).abs().max() < 1e-4


def test_no_gradient_stays_none():
    assert torch.equal(orthogonal(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


def test_each_of_several_matrices_one_upon_another_is_made_orthogonal_apart():
    values_3RC = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 0.1])[:, None, None]
    model = LayeredModel([("first", nn.Linear(6, 6)), ("middle", StackedLinear(6, 6, 3, bias=False)), ("last", nn.Linear(18, 2))])
    weight = model.get_parameter("middle.weight")
    before = weight.detach().clone()
    optimizer = build_optimizer(model, Muon(learning_rate=0.1, momentum=0.0, weight_decay=0.0), model)
    weight.grad = values_3RC.flatten(0, 1).clone()
    optimizer.step()
    moved_3RC = (before - weight.detach()).unflatten(0, (3, 6))
    for moved, values in zip(moved_3RC, values_3RC, strict=True):
        assert torch.allclose(moved, 0.1 * 0.2 * 6**0.5 * orthogonal(values[None])[0], atol=1e-6)


@pytest.mark.parametrize(("settings", "matrices"), [
    (GptModel(num_layers=2, num_heads=2, width=16), {"query_key_value": 3, "attention_out": 1, "feed_in": 1, "feed_out": 1}),
    (Qwen3Model(num_layers=2, num_heads=2, head_width=8, width=16), dict.fromkeys(
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
         "mlp.down_proj"], 1))], ids=lambda value: getattr(value, "kind", ""))
def test_the_matrices_of_a_language_model_are_those_of_its_blocks(settings, matrices):
    model = build_model(settings, sizes(50, 8), seed=1)
    named = {parameter: name for name, parameter in model.named_parameters()}
    assert {named[parameter]: count for parameter, count in matrices_of(model).items()} == {
        f"block_{i}.{name}.weight": count for i in range(2) for name, count in matrices.items()}


def test_all_else_moves_as_with_adamw_and_one_state_holds_both():
    def stepped(settings):
        model = build_model(GptModel(num_layers=1, num_heads=2, width=16), sizes(50, 8), seed=1)
        optimizer = build_optimizer(model, settings, model)
        for _ in range(3):
            for i, parameter in enumerate(model.parameters()):
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            for group in optimizer.param_groups:
                group["lr"] = 0.01
            optimizer.step()
        return model, optimizer

    (muon, optimizer), (adamw, _) = stepped(Muon(weight_decay=0.1)), stepped(AdamW(weight_decay=0.1))
    matrices = matrices_of(muon)
    for (name, one), other in zip(muon.named_parameters(), adamw.parameters(), strict=True):
        assert torch.equal(one, other) == (one not in matrices), name
    kept = sum(value.numel() for state in optimizer.state.values() for value in state.values() if value.dim())
    parameters, in_matrices = sum(p.numel() for p in muon.parameters()), sum(p.numel() for p in matrices)
    assert kept == Muon().values_kept(parameters, in_matrices)


def test_a_segment_without_matrices_or_with_nothing_else_is_trained():
    model = build_model(Qwen3Model(num_layers=2, num_heads=2, head_width=8, width=16), sizes(50, 8), seed=1)
    for name in ("embedding", "block_0", "head"):
        held = model.layers[name]
        optimizer = build_optimizer(held, Muon(), model)
        for parameter in held.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = [parameter.detach().clone() for parameter in held.parameters()]
        optimizer.step()
        assert all(not torch.equal(one, other) for one, other in zip(before, held.parameters(), strict=True)), name
    build_optimizer(nn.ModuleList(), Muon(), model).step()  # a segment that trains nothing
