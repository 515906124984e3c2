"""Llama and Qwen3: their layers, initial weights and facts."""

import pytest
import torch

from pipelines.config.checks import contradictions
from pipelines.models.architectures import module_of
from pipelines.models.build import build_model
from pipelines.models.gpt.settings import GptModel
from pipelines.models.llama.facts import facts as llama_facts
from pipelines.models.llama.settings import LlamaModel
from pipelines.models.matrices import matrices_of
from pipelines.models.qwen3.settings import Qwen3Model
from pipelines.models.root_mean_square import RootMeanSquareNorm
from pipelines.models.rotary import turned, turns
from pipelines.train.probe import facts_of
from tests.support.example_data import example_config, language, sizes

KINDS = [LlamaModel, Qwen3Model]
SMALL = {"num_layers": 2, "width": 24, "num_heads": 4, "num_key_value_heads": 2, "head_width": 8}


@pytest.mark.parametrize("section", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_counted_by_hand_is_what_a_probe_finds(section, tied):
    settings = section(num_layers=3, width=64, num_heads=4, num_key_value_heads=2, head_width=16, tied_embeddings=tied)
    task = language(512, 64)
    counted, probed = llama_facts(settings, task), facts_of(build_model(settings, task.sizes, seed=0), task)
    for by_hand, found in zip(counted.layers, probed.layers, strict=True):
        for field in ("name", "parameters", "tied_parameters", "output_bytes_per_sample", "buffer_bytes", "matrix_parameters"):
            assert getattr(by_hand, field) == getattr(found, field), (by_hand.name, field)
        assert found.saved_bytes_per_sample == pytest.approx(by_hand.saved_bytes_per_sample, rel=0.25, abs=4096), by_hand.name


def test_qwen3_0_6b_has_596_million_parameters():
    settings = Qwen3Model(num_layers=28, width=1024, num_heads=16, num_key_value_heads=8, head_width=128, feed_width=3072)
    assert llama_facts(settings, language(151_936, 40_960)).parameters == 596_049_920


def test_heads_follow_from_the_width_where_they_are_not_given():
    small, wide = LlamaModel(width=192), LlamaModel(width=2048)
    assert (small.width_of_head, small.heads, small.key_value_heads, small.width_of_feed) == (64, 3, 3, 512)
    assert (wide.width_of_head, wide.heads, wide.width_of_feed) == (128, 16, 5504)
    assert LlamaModel(width=32).heads == 1


@pytest.mark.parametrize(("given", "place", "said"), [
    ({"head_width": 7}, "model.head_width", "is odd"),
    ({"num_heads": 6, "num_key_value_heads": 4}, "model.num_key_value_heads", "does not divide the number of heads (6)")])
def test_heads_that_do_not_fit_are_refused(given, place, said):
    config = example_config(model={"kind": "qwen3", **given})
    (fault,) = contradictions(config.recipe, config.platform)
    assert str(fault.place) == place and said in str(fault)


@pytest.mark.parametrize("section", KINDS)
def test_every_block_begins_as_no_change(section):
    model = build_model(section(**SMALL), sizes(50, 8), seed=1)
    tokens_BT = torch.randint(0, 50, (2, 8))
    hidden_BTD = model.layers["embedding"](tokens_BT)
    assert torch.equal(model.layers["block_1"](model.layers["block_0"](hidden_BTD)), hidden_BTD)


def grown(section, **settings):
    """With weights of which all matter."""
    model = build_model(section(**{**SMALL, **settings}), sizes(50, 16), seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.dim() == 2 else 0.1)
                            + (1.0 if "norm" in name else 0.0))
    return model


@pytest.mark.parametrize("section", KINDS)
def test_a_token_sees_its_past_and_where_it_was_and_never_its_future(section):
    model = grown(section)
    tokens_BT = torch.randint(0, 50, (1, 12), generator=torch.Generator().manual_seed(2))
    changed_BT = tokens_BT.clone()
    changed_BT[0, 5:] = (changed_BT[0, 5:] + 1) % 50
    swapped_BT = tokens_BT.clone()
    swapped_BT[0, :2] = tokens_BT[0, :2].flip(0)
    with torch.no_grad():
        before, after, swapped = model(tokens_BT), model(changed_BT), model(swapped_BT)
    assert torch.allclose(before[0, :5], after[0, :5], atol=1e-6)
    assert not torch.allclose(before[0, 5:], after[0, 5:], atol=1e-3)
    assert not torch.allclose(before[0, 2:], swapped[0, 2:], atol=1e-3)  # the order of what came before matters


def test_a_turn_depends_on_the_distance_of_two_positions_alone():
    turns_2Td = turns(32, 8, 10_000.0)
    query_d, key_d = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))

    def score(query_at, key_at):
        return float(turned(query_d[None, None, None], turns_2Td[:, query_at : query_at + 1]).flatten()
                     @ turned(key_d[None, None, None], turns_2Td[:, key_at : key_at + 1]).flatten())

    assert score(3, 1) == pytest.approx(score(20, 18), abs=1e-5)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-3)
    assert score(0, 0) == pytest.approx(float(query_d @ key_d), abs=1e-5)


def test_a_table_of_turns_is_no_part_of_the_model():
    model = build_model(Qwen3Model(**SMALL), sizes(50, 8), seed=1)
    assert not any("turns" in name for name in model.unique_state())
    assert torch.equal(model.get_buffer("block_1.self_attn.turns_2Td"), turns(8, 8, 10_000.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_norm_and_its_gradients_are_torchs_own(dtype):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, 16, generator=generator).to(dtype)
    arriving = torch.randn(3, 5, 16, generator=generator)
    ours, theirs = RootMeanSquareNorm(16, 1e-6), torch.nn.RMSNorm(16, 1e-6)
    if dtype == torch.float64:
        ours, theirs, arriving = ours.double(), theirs.double(), arriving.double()
    results = []
    for norm in (ours, theirs):
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2.0, 16))
        leaf = hidden.clone().requires_grad_()
        result = norm(leaf if norm is ours or dtype == torch.float64 else leaf.float())
        result.backward(arriving)
        results.append((result.detach(), leaf.grad, norm.weight.grad))
    assert results[0][1].dtype == dtype
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-2 if dtype == torch.bfloat16 else 1e-6)


def test_the_gradient_of_a_turn_is_that_of_autograd():
    turns_2Td = turns(6, 8, 100.0).double()
    values_BTHd = torch.randn(2, 6, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: turned(value, turns_2Td), values_BTHd)


@pytest.mark.parametrize("section", [GptModel, *KINDS])
def test_the_planned_number_of_values_in_matrices_is_that_of_the_model(section):
    settings, task = section(num_layers=3, width=32, num_heads=4), language(101, 16)
    counted = module_of(settings, "facts").facts(settings, task)
    assert sum(layer.matrix_parameters for layer in counted.layers) == sum(
        parameter.numel() for parameter in matrices_of(build_model(settings, task.sizes, seed=0)))
