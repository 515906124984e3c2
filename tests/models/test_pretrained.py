"""``model: {from: FOLDER}``: weights of transformers' folders are read as they are, and written as they were (but for the bias of
GPT-2's keys, which the softmax cancels)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pipelines.errors import CheckpointError, ConfigError, DataError, RankFailedError, SparkringError
from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore
from pipelines.launch.identity import default_run_id
from pipelines.launch.planning import plan_train
from pipelines.models import weight_slices
from pipelines.models.architectures import described_by
from pipelines.models.as_planned import fill_as_planned, sketch_as_planned
from pipelines.models.build import build_model, fill_model, sketch_model
from pipelines.models.export import save_model
from pipelines.models.exported_model import load_model
from pipelines.models.facts import model_facts
from pipelines.models.pretrained.settings import PretrainedModel
from tests.support.example_data import VOCABULARY_SIZE, example_config, language, publish_example, sizes
from tests.support.pretrained_folders import CONFIGS, change_config, save_pretrained

TASK = language(VOCABULARY_SIZE, 16)


def section_of(folder) -> PretrainedModel:
    return PretrainedModel.model_validate({"from": str(folder)})


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def gone_through(folder: Path, out: Path):
    """The model of the folder, written as a run would."""
    settings = section_of(folder)
    model = build_model(settings, TASK.sizes, seed=0)
    save_model(FolderStore(out), model.unique_state().items(), model.specs(), described_by(settings), task=TASK, files={},
               notes={"step": "0", "validation_loss": "1.0"})
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_in_and_out_again_gives_the_same_bits(tmp_path, name, dtype):
    save_pretrained(tmp_path / "in", name, dtype=dtype, max_shard_size="20KB" if dtype == torch.float32 else "5GB")
    model = gone_through(tmp_path / "in", tmp_path / "out")
    before, after = stored(tmp_path / "in"), stored(tmp_path / "out")
    assert before.keys() == after.keys()
    for parameter, value in before.items():
        assert value.dtype == dtype and torch.equal(after[parameter], value.float()), parameter
    known, given = (json.loads((tmp_path / side / "config.json").read_text()) for side in ("out", "in"))
    for field in known.keys() & given.keys() - {"dtype", "torch_dtype", "n_inner", "sliding_window", "max_window_layers"}:
        assert known[field] == given[field], field
    tokens_BT = torch.randint(0, VOCABULARY_SIZE, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(tmp_path / "in", dtype=torch.float32)(tokens_BT).logits
        assert (model.eval()(tokens_BT) - expected).abs().max() < 1e-5 * expected.abs().max()
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert torch.allclose(again(tokens_BT).logits, expected, atol=1e-5)
        assert torch.equal(load_model(tmp_path / "out").model(tokens_BT), model(tokens_BT))


def test_what_is_exported_says_its_own_architecture_and_needs_the_folder_no_more(tmp_path):
    save_pretrained(tmp_path / "in", "qwen3")
    gone_through(tmp_path / "in", tmp_path / "out")
    shutil.rmtree(tmp_path / "in")
    settings = load_model(tmp_path / "out").settings
    assert (settings.kind, settings.vocabulary_size, settings.positions) == ("qwen3", VOCABULARY_SIZE, 64)
    assert settings.rope_theta == 5e4


def test_a_model_exported_here_is_gone_on_from(tmp_path):
    save_pretrained(tmp_path / "in", "gpt2")
    model = gone_through(tmp_path / "in", tmp_path / "out")
    again = build_model(section_of(tmp_path / "out"), TASK.sizes, seed=5)
    assert all(torch.equal(value, again.unique_state()[name]) for name, value in model.unique_state().items())


def test_names_without_the_prefix_and_tables_of_older_versions_are_known(tmp_path):
    save_pretrained(tmp_path / "in", "gpt2")
    expected = build_model(section_of(tmp_path / "in"), TASK.sizes, seed=0).unique_state()
    weights = {name.removeprefix("transformer."): value for name, value in stored(tmp_path / "in").items()}
    weights |= {"h.0.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.bool), "lm_head.weight": weights["wte.weight"].clone()}
    save_file(weights, tmp_path / "in/model.safetensors")
    found = build_model(section_of(tmp_path / "in"), TASK.sizes, seed=0).unique_state()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert model_facts(example_config(model={"from": str(tmp_path / "in")}).recipe, publish_example(Lake.at(tmp_path))).code


def test_a_rank_reads_only_the_layers_that_it_keeps(tmp_path, monkeypatch):
    save_pretrained(tmp_path / "in", "qwen3 untied", max_shard_size="10KB")
    settings, read = section_of(tmp_path / "in"), []
    original = weight_slices.read_tensor
    monkeypatch.setattr(weight_slices, "read_tensor",
                        lambda file, tensor, take: read.append(tensor.name) or original(file, tensor, take))
    model = sketch_model(settings, TASK.sizes, seed=0)
    hashes = fill_model(model, settings, 0, ["block_1", "head"])
    assert {*read, "architecture"} == set(hashes) and read
    assert all(".layers.1." in name or name in ("lm_head.weight", "model.norm.weight") for name in read)
    whole = build_model(settings, TASK.sizes, seed=0)
    for name, value in model.named_tensors():
        assert value.is_meta != name.startswith(("block_1.", "head.")), name
        assert value.is_meta or torch.equal(value, dict(whole.named_tensors())[name])


def test_every_tensor_is_read_in_pieces(tmp_path, monkeypatch):
    save_pretrained(tmp_path / "in", "gpt2 untied")
    expected = build_model(section_of(tmp_path / "in"), TASK.sizes, seed=0).unique_state()
    monkeypatch.setattr("pipelines.lake.stored_weights.PIECE_BYTES", 300)
    found = build_model(section_of(tmp_path / "in"), TASK.sizes, seed=0).unique_state()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_run_is_named_after_the_weights_and_not_after_their_place_or_files(tmp_path):
    manifest = publish_example(Lake.at(tmp_path / "lake"))

    def run_id(folder):
        return default_run_id(example_config(model={"from": str(folder)}).recipe, manifest)

    save_pretrained(tmp_path / "in", "qwen3")
    first = run_id(tmp_path / "in")
    shutil.copytree(tmp_path / "in", tmp_path / "copy")
    save_pretrained(tmp_path / "sharded", "qwen3", max_shard_size="10KB")
    assert run_id(tmp_path / "copy") == run_id(tmp_path / "sharded") == first
    weights = stored(tmp_path / "copy")
    weights["model.norm.weight"][3] += 1e-6
    save_file(weights, tmp_path / "copy/model.safetensors")
    assert run_id(tmp_path / "copy") != first
    change_config(tmp_path / "in", rms_norm_eps=1e-5)
    assert run_id(tmp_path / "in") != first


def test_a_url_is_read_as_a_folder(tmp_path):
    save_pretrained(tmp_path / "in", "qwen3")
    remote = fsspec.filesystem("memory")
    remote.put(str(tmp_path / "in"), "/models/tiny", recursive=True)
    expected = build_model(section_of(tmp_path / "in"), TASK.sizes, seed=0).unique_state()
    found = build_model(section_of("memory://models/tiny"), TASK.sizes, seed=0).unique_state()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


# What is bad: each with its own words.

def refusal(tmp_path, folder="in", error: type[SparkringError] = CheckpointError, task_rows=16) -> str:
    manifest = publish_example(Lake.at(tmp_path / f"lake-{folder}"), sequence_length=task_rows)
    recipe = example_config(model={"from": str(tmp_path / folder)}, prepare__sequence_length=task_rows).recipe
    with pytest.raises(error) as refused:
        model_facts(recipe, manifest)
    return str(refused.value)


@pytest.mark.parametrize(("field", "value", "said"), [
    ("num_hidden_layers", 5, "missing model.layers.4.input_layernorm.weight, model.layers.4.mlp.down_proj.weight, "),
    ("num_hidden_layers", 3, "unknown model.layers.3.input_layernorm.weight"),
    ("intermediate_size", 48, "model.layers.0.mlp.gate_proj.weight has the shape [40, 24], by config.json it is [48, 24]"),
    ("vocab_size", 33, "model.embed_tokens.weight has the shape [32, 24], by config.json it is [33, 24]"),
    ("num_attention_heads", 6, "model.layers.0.self_attn.q_proj.weight has the shape [32, 24], by config.json it is [48, 24]"),
    ("tie_word_embeddings", False, "missing lm_head.weight, unknown none"),
    ("num_key_value_heads", 3, "model.num_key_value_heads: 3 does not divide"),
    ("num_hidden_layers", "many", "num_hidden_layers: 'many' is not accepted: a whole number is wanted"),
    ("hidden_size", -1, "hidden_size: -1 is not accepted: at least 1 is wanted"),
    ("num_attention_heads", 0, "num_attention_heads: 0 is not accepted: at least 1 is wanted"),
    ("model_type", ["qwen3"], "model_type ['qwen3'] is none that is known here"),
    ("attention_bias", True, "attention_bias: True is not accepted"),
    ("hidden_act", "gelu", "hidden_act: 'gelu' is not accepted: one of 'silu' is wanted"),
    ("use_sliding_window", True, "use_sliding_window: True is not accepted"),
    ("rope_parameters", {"rope_type": "yarn", "factor": 4.0}, "rope_parameters.rope_type: 'yarn' is not accepted"),
    ("model_type", "mamba", "model_type 'mamba' is none that is known here; use a model of gpt2, llama, qwen3"),
])
def test_a_config_that_does_not_fit_its_weights_or_this_project_is_refused_by_the_field(tmp_path, field, value, said):
    save_pretrained(tmp_path / "in", "qwen3")
    change_config(tmp_path / "in", **{field: value})
    assert said in refusal(tmp_path)


def test_unknown_fields_are_refused_by_their_names(tmp_path):
    save_pretrained(tmp_path / "in", "llama")
    change_config(tmp_path / "in", final_logit_softcapping=30.0, embedding_multiplier=12)
    said = refusal(tmp_path)
    assert f"{tmp_path}/in/config.json: embedding_multiplier, final_logit_softcapping: unknown here" in said


@pytest.mark.parametrize(("change", "said"), [
    (lambda weights: weights.pop("model.layers.2.mlp.up_proj.weight"), "missing model.layers.2.mlp.up_proj.weight, unknown none"),
    (lambda weights: weights.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}),
     "missing none, unknown model.layers.0.self_attn.q_proj.bias"),
    (lambda weights: weights.update({"model.norm.weight": torch.ones(24, dtype=torch.int8)}),
     "model.norm.weight is of type I8; give weights that are not quantized"),
    (lambda weights: weights.update({"model.norm.weight": torch.ones(24).to(torch.float8_e4m3fn)}),
     "model.norm.weight is of type F8_E4M3; give weights that are not quantized"),
    (lambda weights: weights.update({"lm_head.weight": torch.zeros(32, 24)}),
     "lm_head.weight is not model.embed_tokens.weight, and by config.json they are one"),
])
def test_missing_extra_and_other_weights_are_refused_by_their_names(tmp_path, change, said):
    save_pretrained(tmp_path / "in", "qwen3")
    weights = stored(tmp_path / "in")
    change(weights)
    save_file(weights, tmp_path / "in/model.safetensors")
    assert said in refusal(tmp_path)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("size", [0, 5, 100, -1000])
def test_a_file_that_is_cut_off_is_refused(tmp_path, size):
    save_pretrained(tmp_path / "in", "qwen3")
    cut(tmp_path / "in/model.safetensors", size)
    assert "cut off" in refusal(tmp_path)


def test_a_folder_of_which_a_file_is_missing_is_refused(tmp_path):
    save_pretrained(tmp_path / "in", "qwen3", max_shard_size="10KB")
    gone = sorted((tmp_path / "in").glob("model-*.safetensors"))[1]
    gone.unlink()
    assert f"{gone}: is missing" in refusal(tmp_path)


def test_an_index_leads_nowhere_else(tmp_path):
    save_pretrained(tmp_path / "in", "qwen3", max_shard_size="10KB")
    index = tmp_path / "in/model.safetensors.index.json"
    content = json.loads(index.read_text())
    for number, name in enumerate(["../secret.safetensors", "..", "", ["x"], 3.5, "x\0"]):
        content["weight_map"]["model.norm.weight"] = name
        index.write_text(json.dumps(content))
        shutil.rmtree(tmp_path / "lake-in", ignore_errors=True)
        said = refusal(tmp_path)
        assert f"names {str(name)!r}, which is no file of this folder" in said or "3.5: is missing" in said, number


def test_pickled_weights_are_never_opened(tmp_path):
    model = save_pretrained(tmp_path / "in", "qwen3")
    (tmp_path / "in/model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "in/pytorch_model.bin")
    said = refusal(tmp_path)
    assert "pytorch_model.bin: is pickled, and unpickling runs whatever code it holds" in said
    assert "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)" in said


def test_a_folder_that_is_none_is_refused(tmp_path):
    assert "holds no config.json" in refusal(tmp_path, "nowhere")
    (tmp_path / "list").mkdir()
    (tmp_path / "list/config.json").write_text("[1]")
    assert "is not a model's folder" in refusal(tmp_path, "list")


def test_data_that_the_model_is_not_for_is_refused(tmp_path):
    save_pretrained(tmp_path / "in", "qwen3", vocab_size=20, bos_token_id=0, eos_token_id=0)
    assert "has 20 tokens, the dataset's tokenizer has ids up to 31" in refusal(tmp_path, error=ConfigError)
    save_pretrained(tmp_path / "short", "gpt2", n_positions=8)
    assert "is for up to 8 tokens, prepare.sequence_length is 16; use at most 8" in refusal(tmp_path, "short", ConfigError)


def test_a_vocabulary_that_differs_from_the_datasets_is_refused(tmp_path):
    lake = Lake.at(tmp_path / "lake")
    manifest = publish_example(lake)
    tokenizer = (lake.root / lake.dataset("example", "v1") / "tokenizer.json").read_bytes()
    save_pretrained(tmp_path / "in", "qwen3", tokenizer=tokenizer)
    config = example_config(model={"from": str(tmp_path / "in")}, layout__num_replicas=1)
    assert plan_train(config, lake, manifest, None).attempt is not None
    content = json.loads(tokenizer)
    vocabulary = content["model"]["vocab"]
    vocabulary["c"], vocabulary["d"] = vocabulary["d"], vocabulary["c"]
    (tmp_path / "in/tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"2 of the 32 tokens of .*tokenizer.json have another id in the dataset, or none "
                                          r"\('c': 3 there, 2 here\)"):
        plan_train(config, lake, manifest, None)


def test_more_tokens_than_the_tokenizer_has_are_kept_and_never_written(tmp_path):
    save_pretrained(tmp_path / "in", "qwen3", vocab_size=48)
    model = gone_through(tmp_path / "in", tmp_path / "out")
    assert model(torch.zeros(1, 4, dtype=torch.long)).shape[-1] == 48
    assert json.loads((tmp_path / "out/config.json").read_text())["vocab_size"] == 48


@pytest.mark.processes
def test_a_url_that_cannot_be_reached_ends_soon_and_says_so():
    code = ("from pipelines.models.pretrained.opened import opened_folder as look_at\n"
            "from pipelines.errors import SparkringError\n"
            "try:\n    look_at('hf://nobody/nothing')\nexcept SparkringError as error:\n    print(type(error).__name__, error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1"})
    assert done.stdout.startswith(("DataError hf://nobody/nothing", "CheckpointError hf://nobody/nothing")), done.stderr
    assert "check the URL and the network" in done.stdout


def test_a_url_of_a_file_system_that_is_not_installed_says_what_is_missing():
    with pytest.raises(DataError, match="needs a package that is not installed"):
        build_model(section_of("abfs://container/model"), sizes(32, 16), seed=0)


def test_a_password_in_a_url_is_refused():
    with pytest.raises(ValueError, match="a URL with a password"):
        section_of("s3://key:secret@bucket/model")


def test_an_index_that_a_smaller_model_left_behind_counts_for_nothing_as_for_transformers(tmp_path):
    save_pretrained(tmp_path / "in", "qwen3", max_shard_size="10KB")
    save_pretrained(tmp_path / "in", "qwen3")
    shards = list((tmp_path / "in").glob("model-*"))
    (tmp_path / "in/model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {"model.norm.weight": "gone"}}')
    assert not shards and build_model(section_of(tmp_path / "in"), TASK.sizes, seed=0)


def test_an_architecture_that_is_changed_between_plan_and_launch_is_noticed(tmp_path):
    save_pretrained(tmp_path / "in", "qwen3")
    settings = section_of(tmp_path / "in")
    planned = model_facts(example_config(model={"from": str(tmp_path / "in")}).recipe, publish_example(Lake.at(tmp_path))).code
    change_config(tmp_path / "in", rms_norm_eps=1e-3)
    model = sketch_as_planned(settings, TASK.sizes, 0, planned)
    with pytest.raises(RankFailedError, match=r"is not what the driver looked at \(architecture\)"):
        fill_as_planned(model, settings, 0, list(model.layers), planned)


def test_a_folder_whose_description_leads_elsewhere_is_refused(tmp_path):
    save_pretrained(tmp_path / "in", "qwen3")
    gone_through(tmp_path / "in", tmp_path / "out")
    description = json.loads((tmp_path / "out/sparkring.json").read_text())
    description["model"] = {"kind": "from", "from": str(tmp_path / "out")}
    (tmp_path / "out/sparkring.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="leads to"):
        load_model(tmp_path / "out")
    assert "leads to" in refusal(tmp_path, "out")


def test_fields_without_effect_of_well_known_folders_are_passed_over(tmp_path):
    save_pretrained(tmp_path / "in", "llama")
    change_config(tmp_path / "in", is_llama_config=True, rope_interleaved=False, gradient_checkpointing=False, unsloth_fixed=True,
                  **{"transformers.js_config": {"dtype": "q4"}})
    assert build_model(section_of(tmp_path / "in"), TASK.sizes, seed=0)


def test_of_positions_that_are_given_twice_the_scaling_counts_as_for_transformers(tmp_path):
    save_pretrained(tmp_path / "in", "llama scaled")
    scaling = json.loads((tmp_path / "in/config.json").read_text())["rope_parameters"]
    change_config(tmp_path / "in", rope_scaling=scaling, rope_parameters={"rope_type": "default", "rope_theta": 5e4})
    assert described_by(section_of(tmp_path / "in")).rope_scaling.factor == 8.0


def test_a_connection_that_is_lost_while_weights_are_read_is_told_as_such(tmp_path, monkeypatch):
    save_pretrained(tmp_path / "in", "qwen3")
    system = fsspec.filesystem("memory")
    system.put(str(tmp_path / "in"), "/models/lost", recursive=True)
    section = section_of("memory://models/lost")
    model = sketch_model(section, TASK.sizes, seed=0)

    def lost(*_):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(weight_slices, "read_tensor", lost)
    with pytest.raises(DataError, match=r"memory://models/lost/model.safetensors: cannot be read: reset by peer; check the URL"):
        fill_model(model, section, 0, list(model.layers))


def test_a_file_url_is_the_path_that_it_names(tmp_path):
    save_pretrained(tmp_path / "a folder", "qwen3")
    for url in (f"file:{tmp_path}/a folder", f"file://localhost{tmp_path}/a%20folder", (tmp_path / "a folder").as_uri()):
        assert described_by(section_of(url).with_paths(lambda path: path)).kind == "qwen3"
