"""A GGUF file is loaded by a real llama.cpp, which reads the same ids and writes the same text; what it would do otherwise is
refused."""

from __future__ import annotations

import json
import random
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import xllamacpp
from gguf import GGUFReader
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipelines.errors import AlreadyRunningError, CheckpointError
from pipelines.lake.store import FolderStore
from pipelines.models import gguf_file, weights
from pipelines.models.gguf_file import planned_gguf, write_gguf
from pipelines.models.gguf_vocabulary import GPT2_WORDS, LLAMA3_WORDS, QWEN2_WORDS
from pipelines.models.gpt.settings import GptModel
from pipelines.models.llama.settings import LlamaModel
from pipelines.models.qwen3.settings import Qwen3Model
from pipelines.prepare.text.tokenizer import END_OF_TEXT, bytes_tokenizer, characters_tokenizer, train_bpe
from pipelines.tasks.generation import Prompt, Sampling, continuations
from tests.models.test_standard import TEXT, WINDOW, exported, facts_with

LEARNED = TEXT + " it's 12345 IT'S don't\r\n\n   x  =  y ; äöü 2024 2025 12 123 1234" * 3
LLAMA = {"num_layers": 2, "num_heads": 4, "num_key_value_heads": 2, "head_width": 32, "width": 64}
MODELS = {
    **{f"gpt {'bias' if bias else 'no bias'} {'tied' if tied else 'untied'}":
       GptModel(num_layers=2, num_heads=2, width=64, bias=bias, tied_embeddings=tied)
       for bias in (True, False) for tied in (True, False)},
    "llama": LlamaModel(**LLAMA), "llama untied": LlamaModel(**LLAMA, tied_embeddings=False, rope_theta=5e5),
    "llama scaled": LlamaModel(**LLAMA, rope_scaling={"factor": 8.0, "first_positions": 24}),
    "qwen3": Qwen3Model(**LLAMA, rope_theta=5e5), "qwen3 untied": Qwen3Model(**LLAMA, tied_embeddings=False)}
NASTY = "aZ é ſß\u0301 漢字 \u200d🙂🇩🇪 ١٢٣ ½ 0123456789 \t\n\r\x0b\x00\xa0\u3000'sS'llVE.,;(){}<>[]|_-+=\\\"`~#"
SPECIAL = "<|endoftext|>x<|endoftext|>"
TEXTS = [TEXT, SPECIAL, " ", "  \n\n \t", "a\r\nb\n\n\n  c  ", "don't DON'T it'S we'll", "1 12 123 1234 12345678 ١٢٣ ½²",
         " zebras zebras", "e\u0301 é ﬁ", "👩‍👩‍👧‍👦🇩🇪 漢字かな交じり文 русский", "\x00\x7f\xa0\u3000.", "<tool>  <tool>",
         "for (i=0;i<10;i++) {\n\t\tx[i] += 1;\n}", *("".join(random.Random(seed).choices(NASTY, k=300)) for seed in range(20))]


def with_words(expression: str, *, whole: bool) -> Tokenizer:
    """As a ``tokenizer.json`` of somebody else's: with a token that no merge makes, and one that is found in any text."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([LEARNED] * 3, trainers.BpeTrainer(
        vocab_size=420, special_tokens=[END_OF_TEXT], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    saved = json.loads(tokenizer.to_str())
    saved["model"]["vocab"]["Ġzebras"] = tokenizer.get_vocab_size()
    tokenizer = Tokenizer.from_str(json.dumps(saved))
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


def with_gaps() -> Tokenizer:
    saved = json.loads(train_bpe([LEARNED] * 3, 400).to_str())
    saved["model"]["vocab"][END_OF_TEXT] = saved["added_tokens"][0]["id"] = 450
    return Tokenizer.from_str(json.dumps(saved))


TOKENIZERS = {"bpe": train_bpe([LEARNED] * 3, 400), "bytes": bytes_tokenizer(), "gaps": with_gaps(),
              "gpt-2": with_words(GPT2_WORDS, whole=False), "qwen2": with_words(QWEN2_WORDS, whole=False),
              "llama-bpe": with_words(LLAMA3_WORDS, whole=True), "smaug-bpe": with_words(LLAMA3_WORDS, whole=False)}


class Llama:
    """llama.cpp's server with one model, in this process."""

    def __init__(self, path: Path) -> None:
        asked = xllamacpp.CommonParams()
        asked.model.path = str(path)
        asked.hostnames, asked.port, asked.verbosity = ["127.0.0.1"], 0, 0  # a free port
        asked.n_ctx, asked.n_parallel, asked.warmup, asked.fit_params = WINDOW, 1, False, False
        asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
        asked.cache_type_k = asked.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self._server = xllamacpp.Server(asked)

    def __call__(self, path: str, **asked: Any) -> dict[str, Any]:
        request = urllib.request.Request(self._server.listening_address + path, json.dumps(asked).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def written(folder: Path, kind: str = "f32") -> Path:
    target = folder.with_suffix(".gguf")
    write_gguf(planned_gguf(FolderStore(folder), "foxes best", kind), target)
    return target


@pytest.mark.parametrize("name,kind", [*((name, "bpe") for name in MODELS), ("llama", "bytes")])
def test_llama_cpp_writes_the_same_text(tmp_path, name, kind):
    tokenizer = TOKENIZERS[kind]
    model = exported(tmp_path / "model", MODELS[name], tokenizer)
    llama = Llama(written(tmp_path / "model"))
    task, texts = facts_with(tokenizer), set()
    for prompt in ("The quick", "def f(x):\n", "東京 12", "\n"):
        ids = tokenizer.encode(prompt).ids
        ((_, further),) = continuations(model, [Prompt(ids, 0)], WINDOW - len(ids) - 1, task, Sampling(temperature=0))
        answer = llama("/completion", prompt=prompt, n_predict=WINDOW - len(ids) - 1, temperature=0, return_tokens=True)
        tokens = answer["tokens"]
        assert (tokens[:-1] if tokens[-1] == task.facts["end_of_text_id"] else tokens) == further
        assert answer["content"] == tokenizer.decode(further)
        texts.add(tuple(further))
    assert len({token for text in texts for token in text}) > 10  # it says more than one thing


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_llama_cpp_reads_the_same_ids(tmp_path, kind):
    tokenizer = TOKENIZERS[kind]
    exported(tmp_path / "model", MODELS["qwen3"], tokenizer)
    llama = Llama(written(tmp_path / "model"))
    for text in TEXTS:
        assert llama("/tokenize", content=text, add_special=True)["tokens"] == tokenizer.encode(text).ids, text
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True  # as prepare reads texts
    assert llama("/tokenize", content=SPECIAL, parse_special=False)["tokens"] == plain.encode(SPECIAL).ids


def test_the_file_says_what_it_is(tmp_path):
    exported(tmp_path / "model", MODELS["llama"], TOKENIZERS["gaps"])
    fields = {name: field.contents() for name, field in GGUFReader(written(tmp_path / "model")).fields.items()}
    said = {"general.architecture": "llama", "general.name": "foxes best", "general.file_type": 0, "llama.context_length": WINDOW,
            "llama.rope.dimension_count": 32, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.bos_token_id": 450, "tokenizer.ggml.eos_token_id": 450, "tokenizer.ggml.add_bos_token": False}
    assert {name: fields[name] for name in said} == said
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 451 and (tokens[449], types[449]) == ("[PAD449]", 5)
    assert (tokens[450], types[450]) == (END_OF_TEXT, 3) and types.count(1) == len(TOKENIZERS["bpe"].get_vocab()) - 1


def test_half_the_bytes_give_nearly_the_same_model(tmp_path):
    exported(tmp_path / "model", MODELS["gpt bias tied"])
    whole, half = ({tensor.name: tensor for tensor in GGUFReader(written(tmp_path / "model", kind)).tensors}
                   for kind in ("f32", "f16"))
    for name, tensor in half.items():
        assert tensor.tensor_type.name == ("F16" if len(tensor.shape) > 1 and name != "position_embd.weight" else "F32")
        assert abs(tensor.data.astype("f4") - whole[name].data).max() < 1e-3
    assert Llama(tmp_path / "model.gguf")("/completion", prompt="The", n_predict=4)["content"]


def test_weights_in_several_files_are_the_same_file(tmp_path, monkeypatch):
    exported(tmp_path / "one", MODELS["gpt no bias untied"])
    monkeypatch.setattr(weights, "FILE_BYTES", 100_000)
    exported(tmp_path / "several", MODELS["gpt no bias untied"])
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 2
    one, several = ({tensor.name: tensor.data for tensor in GGUFReader(written(tmp_path / name)).tensors}
                    for name in ("one", "several"))
    assert one.keys() == several.keys() and all((one[name] == several[name]).all() for name in one)


def test_a_file_is_told_from_any_other(tmp_path):
    exported(tmp_path / "model", MODELS["qwen3"])
    path, model = written(tmp_path / "model"), FolderStore(tmp_path / "model")
    assert planned_gguf(model, "foxes best", "f32").is_in(path)
    assert not planned_gguf(model, "foxes best", "f16").is_in(path) and not planned_gguf(model, "foxes last", "f32").is_in(path)
    exported(tmp_path / "model", MODELS["qwen3"], step="4")
    assert not planned_gguf(model, "foxes best", "f32").is_in(path)
    path.write_bytes(b"")
    assert not planned_gguf(model, "foxes best", "f32").is_in(path)


def test_a_model_that_its_run_replaces_meanwhile_is_not_written(tmp_path, monkeypatch):
    exported(tmp_path / "model", MODELS["qwen3"])
    write = gguf_file._write

    def written_slowly(*given):
        write(*given)
        exported(tmp_path / "model", MODELS["qwen3"], step="4")

    monkeypatch.setattr(gguf_file, "_write", written_slowly)
    with pytest.raises(AlreadyRunningError, match="was replaced by its run"):
        written(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_fails_in_between_leaves_nothing(tmp_path, monkeypatch):
    exported(tmp_path / "model", MODELS["qwen3"])
    calls = iter([lambda value: value] * 5)
    monkeypatch.setattr(gguf_file, "_theirs", lambda config, name, value: next(calls)(value))
    with pytest.raises(StopIteration):
        written(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def changed(kind: str, *path: str, **values: Any) -> dict[str, Any]:
    """A tokenizer's JSON with other values at one place."""
    saved = json.loads(TOKENIZERS[kind].to_str())
    place = saved
    for step in path:
        place = place[int(step) if isinstance(place, list) else step]
    place.update(values)
    return saved


REFUSED_TOKENIZERS = {
    "characters": (json.loads(characters_tokenizer(TEXT).to_str()), "is not byte-level"),
    "not all bytes": (json.loads(Tokenizer.from_str(json.dumps(changed(
        "bytes", "model", vocab={"a": 0, "b": 1}))).to_str()), "is not byte-level"),
    "another kind": (changed("bpe", "model", type="WordPiece"), "is a WordPiece tokenizer"),
    "normalized": (changed("qwen2", normalizer={"type": "NFC"}), "changes text before it is cut (NFC)"),
    "space before": (changed("bpe", "pre_tokenizer", add_prefix_space=True), "puts a space before each text"),
    "dropout": (changed("bpe", "model", dropout=0.1), "has dropout 0.1"),
    "suffix": (changed("bpe", "model", end_of_word_suffix="</w>"), "has end_of_word_suffix '</w>'"),
    "beside": (changed("bpe", "added_tokens", "0", lstrip=True), "looks at what stands beside '<|endoftext|>'"),
    "unknown words": (changed("qwen2", "pre_tokenizer", "pretokenizers", "0", pattern={"Regex": r"\w+"}), r"by '\\w+' (ignore"),
    "words removed": (changed("qwen2", "pre_tokenizer", "pretokenizers", "0", behavior="Removed"), "by 'steps' (ignore"),
    "words twice": (changed("qwen2", "pre_tokenizer", "pretokenizers", "1", use_regex=True), "by 'steps' (ignore"),
    "no words": (changed("bpe", "pre_tokenizer", use_regex=False), "by 'steps' (ignore"),
    "whole words": (changed("bpe", "model", ignore_merges=True), "(ignore_merges: True)")}


@pytest.mark.parametrize("name", REFUSED_TOKENIZERS)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(tmp_path, name):
    saved, reason = REFUSED_TOKENIZERS[name]
    exported(tmp_path, MODELS["qwen3"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(CheckpointError) as refused:
        planned_gguf(FolderStore(tmp_path), "foxes best", "f32")
    assert reason in str(refused.value) and "tokenizer.json: " in str(refused.value)
    assert "train with prepare.tokenizer: {kind: bpe}" in str(refused.value) and refused.value.exit_code == 10


def test_a_normalizer_that_does_nothing_is_none(tmp_path):
    exported(tmp_path, MODELS["qwen3"], TOKENIZERS["bpe"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(changed("bpe", normalizer={"type": "Sequence", "normalizers": []})))
    assert planned_gguf(FolderStore(tmp_path), "foxes best", "f32").vocabulary.pre == "gpt-2"


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        written(folder)
    assert not folder.with_suffix(".gguf").exists()
    return str(error.value)


def test_a_model_that_is_none_of_language_or_of_a_users_own_is_refused(tmp_path):
    folder = tmp_path / "model"
    exported(folder, MODELS["qwen3"])
    path = folder / "sparkring.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"task": said["task"] | {"name": "classification"}}))
    assert "is a model for the task classification; gguf holds models of language" in refused(folder)
    path.write_text(json.dumps(said | {"model": {"kind": "factory", "factory": "mine:build"}}))
    assert "was made by the factory mine:build, which llama.cpp does not know; train a model of kind gpt" in refused(folder)


def test_a_folder_from_before_the_standard_names_is_refused(tmp_path):
    folder = tmp_path / "model"
    exported(folder, MODELS["gpt bias tied"])
    (folder / "config.json").unlink()
    assert "was exported before models had their standard names; train it again" in refused(folder)
    (folder / "sparkring.json").unlink()  # the first ones had a config.json of our own
    first = {"kind": "gpt", "vocabulary_size": 300, "sequence_length": 32, "end_of_text_id": 0}
    (folder / "config.json").write_text(json.dumps(first))
    assert "was exported before models had their standard names; train it again" in refused(folder)


def test_damaged_folders_are_refused(tmp_path):
    folder = tmp_path / "model"
    model = exported(folder, MODELS["gpt bias tied"])
    whole = (folder / "model.safetensors").read_bytes()
    with open(folder / "model.safetensors", "wb") as file:
        weights.write_weights(file, model.unique_state().items(), model.specs(), {"step": "3"})
    assert "no gpt2 has a tensor" in refused(folder)
    (folder / "model.safetensors").write_bytes(whole[:-8])
    assert "is not an exported model" in refused(folder)
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "tokenizer.json").unlink()
    assert "is not an exported model" in refused(folder)
    (folder / "tokenizer.json").write_text(TOKENIZERS["gaps"].to_str())
    assert "token 450 of a vocabulary of" in refused(folder)
    saved = json.loads(train_bpe([TEXT] * 3, 300).to_str())
    saved["added_tokens"].append({**saved["added_tokens"][0], "content": "<tool>", "id": 7})
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    assert "and '<tool>' have one id, 7" in refused(folder)
