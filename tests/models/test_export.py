"""A model's folder as it is written."""

import os

import torch

from pipelines.config.models import GptModel
from pipelines.lake import store
from pipelines.lake.store import FolderStore
from pipelines.models.export import save_model
from pipelines.prepare.text.language_rows import language_facts


def test_a_large_model_is_on_the_disk_piece_by_piece_and_not_all_at_the_end(tmp_path, monkeypatch):
    syncs = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: syncs.append(os.fstat(descriptor).st_size))
    monkeypatch.setattr(store, "SYNC_BYTES", 100_000)
    tensors = {f"layer.{i}": torch.full((10_000,), float(i)) for i in range(10)}  # 40,000 bytes each
    seen = []

    def state():
        for item in tensors.items():
            seen.append(len(syncs))
            yield item

    specs = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    save_model(FolderStore(tmp_path / "best"), state(), specs, GptModel(), files={"tokenizer.json": b"{}"}, notes={},
               task=language_facts(vocabulary_size=8, sequence_length=4, end_of_text_id=0, tokenizer_sha256=""))
    assert seen[-1] >= 3  # before the last tensor is asked for
    assert syncs == sorted(syncs)
    assert syncs[0] >= 100_000
