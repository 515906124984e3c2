"""An exported language model is a standard one: transformers loads the folder with nothing set, and computes the same."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.lake.store import FolderStore
from pipelines.models import weights
from pipelines.models.build import build_model
from pipelines.models.export import save_model
from pipelines.models.exported_model import load_model
from pipelines.models.gpt.settings import GptModel
from pipelines.models.layered import LayeredModel
from pipelines.models.llama.settings import LlamaModel
from pipelines.models.qwen3.settings import Qwen3Model
from pipelines.models.weights import write_weights
from pipelines.prepare.text.language_rows import language_facts
from pipelines.prepare.text.tokenizer import characters_tokenizer, end_of_text_id, train_bpe, vocabulary_size
from pipelines.tasks.generation import Prompt, Sampling, continuations

WINDOW = 32
TEXT = "The quick brown fox jumps over the lazy dog.\n  def f(x):\n\treturn 'naïve 東京' # 123\n"
LLAMA = {"num_layers": 2, "num_heads": 4, "num_key_value_heads": 2, "head_width": 8, "width": 24}
MODELS = {
    **{f"gpt {'bias' if bias else 'no bias'} {'tied' if tied else 'untied'}":
       GptModel(num_layers=2, num_heads=2, width=24, bias=bias, tied_embeddings=tied)
       for bias in (True, False) for tied in (True, False)},
    "llama": LlamaModel(**LLAMA), "llama untied": LlamaModel(**LLAMA, tied_embeddings=False),
    "llama scaled": LlamaModel(**LLAMA, rope_scaling={"factor": 8.0, "first_positions": 24}),
    "qwen3": Qwen3Model(**LLAMA, rope_theta=5e5), "qwen3 untied": Qwen3Model(**LLAMA, tied_embeddings=False)}
TOKENIZERS = {"bpe": train_bpe([TEXT] * 3, 300), "characters": characters_tokenizer(TEXT)}


def trained_like(settings, tokenizer: Tokenizer) -> LayeredModel:
    """With weights of which all matter."""
    model = build_model(settings, {"vocabulary_size": vocabulary_size(tokenizer), "sequence_length": WINDOW}, seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.dim() == 2 else 0.1)
                            + (1.0 if "norm" in name and "weight" in name else 0.0))
    return model


def facts_with(tokenizer):
    return language_facts(vocabulary_size=vocabulary_size(tokenizer), sequence_length=WINDOW,
                          end_of_text_id=end_of_text_id(tokenizer), tokenizer_sha256="")


def exported(folder: Path, settings, tokenizer=TOKENIZERS["bpe"], **notes) -> LayeredModel:
    model = trained_like(settings, tokenizer)
    save_model(FolderStore(folder), model.unique_state().items(), model.specs(), settings, task=facts_with(tokenizer),
               files={"tokenizer.json": tokenizer.to_str().encode()}, notes={"step": "3", "validation_loss": "2.5", **notes},
               lineage={"dataset": "foxes, version v1"})
    return model


@pytest.mark.parametrize("name", MODELS)
def test_transformers_computes_the_same_logits_and_writes_the_same_text(tmp_path, name):
    model = exported(tmp_path, MODELS[name])
    theirs, loading = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    assert type(theirs).__name__ == json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    tokens_BT = torch.randint(0, vocabulary_size(TOKENIZERS["bpe"]), (3, WINDOW), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours_BTV, theirs_BTV = model(tokens_BT), theirs(tokens_BT).logits
    assert ours_BTV.std() > 0.3
    assert (ours_BTV - theirs_BTV).abs().max() < 1e-5 * max(1.0, float(ours_BTV.abs().max()))
    prompt = tokens_BT[0, :8].tolist()
    ((_, further),) = continuations(model, [Prompt(prompt, 0)], 16, facts_with(TOKENIZERS["bpe"]), Sampling(temperature=0))
    written = theirs.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, 8:].tolist()
    assert further == (written[:-1] if written[-1] == 0 else written)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_tokenizer_is_loaded_with_nothing_set(tmp_path, kind):
    tokenizer = TOKENIZERS[kind]
    exported(tmp_path, MODELS["qwen3"], tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXT)["input_ids"] == tokenizer.encode(TEXT).ids
    assert theirs.decode(theirs(TEXT)["input_ids"]) == TEXT
    assert theirs.eos_token_id == end_of_text_id(tokenizer) and theirs.model_max_length == WINDOW
    assert theirs.decode([end_of_text_id(tokenizer)], skip_special_tokens=True) == ""


@pytest.mark.parametrize("name", MODELS)
def test_our_own_loader_reads_the_same_folder_bit_by_bit(tmp_path, name):
    model = exported(tmp_path, MODELS[name])
    loaded = load_model(tmp_path)
    for parameter, value in model.unique_state().items():
        assert torch.equal(loaded.model.unique_state()[parameter], value), parameter
    assert loaded.settings == MODELS[name] and loaded.notes["step"] == "3"


@pytest.mark.parametrize("name", ["gpt bias tied", "qwen3 untied"])
def test_weights_above_the_size_of_a_file_are_in_several_with_an_index(tmp_path, monkeypatch, name):
    monkeypatch.setattr(weights, "FILE_BYTES", 20_000)
    exported(tmp_path, MODELS[name])
    first = set(tmp_path.glob("*.safetensors"))
    assert len(first) > 2
    model = exported(tmp_path, MODELS[name], step="4")
    second = set(tmp_path.glob("*.safetensors"))
    assert len(second) == len(first) and not first & second  # what no index names any more is gone
    loaded = load_model(tmp_path)
    assert loaded.notes["step"] == "4"
    theirs, loading = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    tokens_BT = torch.randint(0, 200, (1, WINDOW))
    with torch.no_grad():
        assert torch.equal(loaded.model(tokens_BT), model(tokens_BT))
        assert torch.allclose(theirs(tokens_BT).logits, model(tokens_BT), atol=1e-4)


def test_a_model_that_was_exported_under_our_own_names_is_loaded(tmp_path):
    model = exported(tmp_path, MODELS["gpt bias tied"])
    with open(tmp_path / "model.safetensors", "wb") as file:
        write_weights(file, model.unique_state().items(), model.specs(), {"step": "3"})
    state = load_model(tmp_path).model.unique_state()
    assert all(torch.equal(state[name], value) for name, value in model.unique_state().items())


def test_the_card_says_what_the_model_is_and_where_it_comes_from(tmp_path):
    model = exported(tmp_path, MODELS["qwen3"], run_id="foxes-1a2b")
    card = (tmp_path / "README.md").read_text()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for said in ("# foxes-1a2b", "| architecture | `Qwen3ForCausalLM` |", f"| parameters | {parameters:,} |", "| step | 3 |",
                 "| dataset | foxes, version v1 |", "| validation loss | 2.5000 nats a token (perplexity 12.18) |",
                 "## Limits", "library_name: transformers"):
        assert said in card, said
    exported(tmp_path, MODELS["qwen3"], run_id="foxes-1a2b", validation_loss="2.0", step="4")
    assert "| step | 4 |" in (tmp_path / "README.md").read_text()
