"""One command from a folder of transformers' to a folder of transformers', through Spark; then without the first one."""

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from pipelines.prepare.text.tokenizer import train_bpe
from tests.jobs.test_jobs import run_job
from tests.support.pretrained_folders import save_pretrained

pytestmark = pytest.mark.processes

TEXT = "the text number {0} says that {0} is a number. "
RECIPE = """
name: further
prepare: {inputs: [{path: texts}], split: {validation_fraction: 0.2}, sequence_length: 32, rows_per_row_group: 16}
data: {num_lanes: 4}
model: {from: given}
optimizer: {learning_rate: 3.0e-3}
schedule: {warmup_steps: 2}
train: {global_batch_samples: 8, steps: 20, evaluate_every_steps: 10}
task: {sample_prompt: "the", sample_tokens: 10}
"""
PLATFORM = "spark: {master: 'local[2]'}\nlayout: {num_replicas: 1, num_segments: 2, micro_batch_samples: 4}\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("further")
    (folder / "texts").mkdir()
    for i in range(60):
        (folder / "texts" / f"{i}.txt").write_text(TEXT.format(i) * 10)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "platform.yaml").write_text(PLATFORM)
    tokenizer = train_bpe([TEXT.format(i) for i in range(60)], 300)
    end = tokenizer.token_to_id("<|endoftext|>")
    save_pretrained(folder / "given", "qwen3", vocab_size=320, bos_token_id=end, eos_token_id=end)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder / "given")
    return folder


def test_from_a_folder_to_a_folder_and_on_without_the_first_one(place):
    planned = run_job("pipeline", place, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    done = run_job("pipeline", place)
    assert done.returncode == 0, done.stderr
    (model,) = place.glob("lake/models/further-*/best")
    own = Tokenizer.from_file(str(place / "given/tokenizer.json"))
    assert Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab() == own.get_vocab()
    assert json.loads((model / "sparkring.json").read_text())["model"]["kind"] == "qwen3"

    records = [json.loads(line) for line in next(place.glob("lake/runs/*/attempt-000/rank-00001.jsonl")).read_text().splitlines()]
    assert ("progress", "loading the model") in {(record["kind"], record.get("phase")) for record in records}

    tokens = AutoTokenizer.from_pretrained(model)(TEXT.format(7), return_tensors="pt")["input_ids"]
    with torch.no_grad():
        before, after = (AutoModelForCausalLM.from_pretrained(folder)(tokens, labels=tokens).loss
                         for folder in (place / "given", model))
    assert after < before - 1.0

    shutil.rmtree(place / "given")
    evaluated = run_job("evaluate", place, "--run-id", model.parent.name)
    assert evaluated.returncode == 0, evaluated.stderr
    (result,) = place.glob("lake/runs/*/evaluations/*/result.json")
    best = min(record["loss"] for record in map(json.loads, next(place.glob("lake/runs/*/attempt-000/rank-00000.jsonl"))
               .read_text().splitlines()) if record["kind"] == "evaluation")
    assert json.loads(result.read_text())["loss"] == pytest.approx(best, rel=1e-5)


def test_a_folder_that_is_no_model_is_said_before_anything_is_prepared(place, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    refused = run_job("pipeline", place, "--set", f"model.from={tmp_path}", "--set", f"storage.root={tmp_path / 'lake'}")
    assert refused.returncode == 10
    assert "model_type 'mamba' is none that is known here" in refused.stderr
    assert not (tmp_path / "lake").exists()


def test_a_folder_that_is_gone_is_said_before_anything_starts(place, tmp_path):
    refused = run_job("pipeline", place, "--set", f"model.from={tmp_path / 'nowhere'}")
    assert refused.returncode == 3
    assert f"prepare.tokenizer.path: '{tmp_path}/nowhere/tokenizer.json' cannot be read" in refused.stderr
