"""The GPT: its layers, its initial weights, its plan, its export."""


import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from pipelines.errors import CheckpointError
from pipelines.lake.store import FolderStore
from pipelines.models.attention import causal_attention
from pipelines.models.build import build_model, fill_model, sketch_model
from pipelines.models.export import save_model
from pipelines.models.exported_model import load_model
from pipelines.models.gpt.facts import facts as gpt_facts
from pipelines.models.gpt.settings import GptModel
from pipelines.models.layered import runnable
from pipelines.predict.language_model import load_language_model
from pipelines.prepare.text.language_rows import language_facts
from tests.support.example_data import language, sizes

SMALL = GptModel(num_layers=2, num_heads=2, width=16)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_planned_number_of_parameters_is_the_real_one(tied, bias):
    settings = GptModel(num_layers=3, num_heads=2, width=24, tied_embeddings=tied, bias=bias)
    model = build_model(settings, sizes(101, 32), seed=1)
    assert sum(parameter.numel() for parameter in model.parameters()) == gpt_facts(settings, language(101, 32)).parameters


def test_gpt2_small_has_124_million_parameters():
    key_biases = 12 * 768  # which GPT-2 has and the softmax cancels
    gpt2_small = GptModel(num_layers=12, num_heads=12, width=768)
    assert gpt_facts(gpt2_small, language(50257, 1024)).parameters == 124_439_808 - key_biases


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (build_model(SMALL, sizes(50, 8), seed=seed).unique_state() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["block_0.feed_in.weight"], other["block_0.feed_in.weight"])


@pytest.mark.parametrize("layers", [{"embedding"}, {"block_1"}, {"head"}, {"block_0", "head"}])
def test_a_rank_that_fills_only_its_layers_has_the_weights_of_the_whole_model(layers):
    whole = build_model(SMALL, sizes(50, 8), seed=3).state_dict()
    part = sketch_model(SMALL, sizes(50, 8), seed=0)
    fill_model(part, SMALL, 3, layers)
    for name, value in part.state_dict().items():
        tied = SMALL.tied_embeddings and name in ("embedding.token.weight", "head.project.weight")
        if name.split(".")[0] in layers or (tied and layers & {"embedding", "head"}):
            assert torch.equal(value, whole[name])
        else:
            assert value.is_meta


def test_a_filled_sketch_keeps_its_ties():
    tied = SMALL.model_copy(update={"tied_embeddings": True})
    model = build_model(tied, sizes(50, 8), seed=3)
    assert model.get_submodule("head.project").weight is model.get_submodule("embedding.token").weight


def test_a_sketched_layer_can_be_run_without_being_filled():
    sketch = sketch_model(SMALL, sizes(50, 8), seed=0)
    block = sketch.layers["block_0"]
    assert runnable(block)(torch.zeros(2, 8, 16)).shape == (2, 8, 16)
    assert all(parameter.is_meta for parameter in block.parameters())
    real = build_model(SMALL, sizes(50, 8), seed=3).layers["block_0"]
    assert runnable(real) is real


def test_a_token_never_sees_its_future():
    model = build_model(SMALL, sizes(50, 8), seed=1)
    tokens = torch.randint(0, 50, (1, 8))
    changed = tokens.clone()
    changed[0, 5:] = (changed[0, 5:] + 1) % 50
    before, after = model(tokens), model(changed)
    assert torch.allclose(before[0, :5], after[0, :5], atol=1e-6)
    assert not torch.allclose(before[0, 5:], after[0, 5:], atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_narrow_attention_sees_no_future_and_is_close_to_the_exact_one(bias):
    model = build_model(SMALL.model_copy(update={"bias": bias}), sizes(50, 8), seed=1)
    with torch.no_grad():  # large enough that attention matters
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8.0)
    tokens = torch.randint(0, 50, (3, 8), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 50
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        narrow, other = model(tokens), model(changed)
    assert torch.equal(narrow[:, :5], other[:, :5])
    exact = model(tokens)
    assert (narrow - exact).abs().max() < 0.05 * exact.abs().max()


def test_plain_and_fused_attention_give_the_same_gradients():
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 3, 24, 16, generator=generator) for _ in range(3)]
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        leaves = [part.to(dtype).requires_grad_() for part in parts]
        mixed = causal_attention(*leaves)
        mixed.square().sum().backward()
        results.append([mixed.detach().float(), *(leaf.grad.float() for leaf in leaves)])
    for narrow, exact in zip(*results, strict=True):
        assert (narrow - exact).abs().max() < 0.03 * exact.abs().max()


def save_example(folder, model=None):
    tokenizer = Tokenizer(models.WordLevel({chr(97 + i): i for i in range(26)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    model = model or build_model(SMALL, sizes(26, 8), seed=1)
    save_model(FolderStore(folder), model.unique_state().items(), model.specs(), SMALL,
               task=language_facts(**sizes(26, 8), end_of_text_id=25, tokenizer_sha256=""), notes={"step": "3"},
               files={"tokenizer.json": tokenizer.to_str().encode()})
    return model


def test_an_exported_model_computes_the_same_and_generates_the_same(tmp_path):
    model = save_example(tmp_path / "model")
    loaded = load_language_model(tmp_path / "model")
    tokens = torch.randint(0, 26, (2, 8))
    assert torch.equal(loaded.model(tokens), model.eval()(tokens))
    assert loaded.notes["step"] == "3"
    text = loaded.generate("abc", 5)
    assert text == load_language_model(tmp_path / "model").generate("abc", 5)
    assert text.startswith("a b c") and (tmp_path / "model" / "sparkring.json").exists()


def test_a_model_that_was_exported_before_there_were_other_tasks_is_loaded(tmp_path):
    model = save_example(tmp_path / "model")
    (tmp_path / "model" / "sparkring.json").unlink()
    (tmp_path / "model" / "config.json").write_text(json.dumps(
        {**SMALL.model_dump(mode="json"), **sizes(26, 8), "end_of_text_id": 25}))
    loaded = load_language_model(tmp_path / "model")
    tokens = torch.randint(0, 26, (2, 8))
    assert torch.equal(loaded.model(tokens), model.eval()(tokens)) and loaded.generate("abc", 5).startswith("a b c")


def test_saving_again_replaces_the_weights_and_leaves_nothing_behind(tmp_path):
    save_example(tmp_path / "model")
    other = save_example(tmp_path / "model", build_model(SMALL, sizes(26, 8), seed=2))
    state = load_model(tmp_path / "model").model.unique_state()
    assert all(torch.equal(state[name], value) for name, value in other.unique_state().items())
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "sparkring.json", "tokenizer.json",
        "tokenizer_config.json"]


@pytest.mark.parametrize("damage", ["truncate", "missing", "other sizes"])
def test_a_damaged_export_is_refused_by_name(tmp_path, damage):
    save_example(tmp_path / "model")
    weights, config = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "sparkring.json"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "missing":
        weights.unlink()
    else:
        config.write_text(config.read_text().replace('"width": 16', '"width": 32'))
    with pytest.raises(CheckpointError, match="is not an exported model") as caught:
        load_model(tmp_path / "model")
    assert caught.value.exit_code == 10
