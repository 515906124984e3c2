"""A model's folder as it is written."""

import os
from pathlib import Path

import pytest
import torch

from pipelines.lake import store
from pipelines.lake.store import FolderStore
from pipelines.models.build import build_model
from pipelines.models.export import save_model
from pipelines.models.exported_model import load_model
from pipelines.models.gpt.settings import GptModel
from pipelines.models.llama import model as llama
from pipelines.models.qwen3.settings import Qwen3Model
from pipelines.prepare.text.language_rows import language_facts


def test_a_large_model_is_on_the_disk_piece_by_piece_and_not_all_at_the_end(tmp_path, monkeypatch):
    syncs = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: syncs.append(os.fstat(descriptor).st_size))
    monkeypatch.setattr(store, "SYNC_BYTES", 100_000)
    settings = GptModel(num_layers=6, num_heads=2, width=64)
    model = build_model(settings, {"vocabulary_size": 8, "sequence_length": 4}, seed=1)
    seen = []

    def state():
        for item in model.unique_state().items():
            seen.append(len(syncs))
            yield item

    save_model(FolderStore(tmp_path / "best"), state(), model.specs(), settings, files={}, notes={},
               task=language_facts(vocabulary_size=8, sequence_length=4, end_of_text_id=0, tokenizer_sha256=""))
    assert seen[-1] >= 3  # before the last tensor is asked for
    assert syncs == sorted(syncs)
    assert syncs[0] >= 100_000


def test_a_loaded_models_parameters_are_the_mapped_file_and_stay_ties(tmp_path):
    settings = GptModel(num_layers=2, num_heads=2, width=64, tied_embeddings=True)
    model = build_model(settings, {"vocabulary_size": 500, "sequence_length": 32}, seed=1)
    save_model(FolderStore(tmp_path / "best"), model.unique_state().items(), model.specs(), settings, files={}, notes={},
               task=language_facts(vocabulary_size=500, sequence_length=32, end_of_text_id=0, tokenizer_sha256=""))
    loaded = load_model(tmp_path / "best").model
    assert all(torch.equal(value, loaded.unique_state()[name]) for name, value in model.unique_state().items())
    assert loaded.get_submodule("head.project").weight is loaded.get_submodule("embedding.token").weight
    mapped = [[int(end, 16) for end in line.split()[0].split("-")] for line in Path("/proc/self/maps").read_text().splitlines()
              if line.endswith("best/model.safetensors")]
    for name, value in loaded.named_state():
        assert any(begin <= value.data_ptr() < end for begin, end in mapped), name
    with torch.no_grad():  # a process that writes to its own view changes neither the file nor others
        loaded.get_submodule("head.norm").weight.add_(1.0)
    again = load_model(tmp_path / "best").model
    assert torch.equal(again.get_submodule("head.norm").weight, model.get_submodule("head.norm").weight)


def test_loading_draws_no_initial_values_and_computes_what_no_file_holds(tmp_path, monkeypatch):
    settings, sizes = Qwen3Model(num_layers=2, width=32), {"vocabulary_size": 50, "sequence_length": 8}
    model = build_model(settings, sizes, seed=1)
    save_model(FolderStore(tmp_path), model.unique_state().items(), model.specs(), settings, files={}, notes={},
               task=language_facts(**sizes, end_of_text_id=0, tokenizer_sha256=""))
    monkeypatch.setattr(llama, "generator_of", lambda *_: pytest.fail("a weight is drawn that the file holds"))
    loaded = load_model(tmp_path).model
    assert all(torch.equal(value, dict(loaded.named_tensors())[name]) for name, value in model.named_tensors())
