"""Many files are asked for at a time, and what they give stays in their order."""

from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config.datasets import InputSource
from pipelines.lake.staging import FolderStaging
from pipelines.lake.store import FolderStore
from pipelines.prepare import input_files
from pipelines.prepare.inputs import list_files
from pipelines.prepare.text import language_manifest
from pipelines.prepare.text.local_documents import cut_into_pieces
from pipelines.prepare.text.pack_settings import PackSettings
from pipelines.prepare.threads import WAITING_THREADS, in_threads

TOGETHER_TIMEOUT_S = 30.0  # until as many threads wait as should


def test_results_keep_the_order_of_the_items_and_few_wait() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def square(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return number * number

    assert list(in_threads(square, range(1000), threads=4)) == [number * number for number in range(1000)]
    assert most <= 4


def test_an_error_comes_at_its_items_place() -> None:
    def refuse(number: int) -> int:
        if number in (300, 700):
            raise ValueError(number)
        return number

    seen = []
    with pytest.raises(ValueError, match="300"):
        seen.extend(in_threads(refuse, range(1000)))
    assert seen == list(range(len(seen)))


def test_the_footers_of_parquet_inputs_are_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(WAITING_THREADS):
        pq.write_table(pa.table({"text": [f"text {number}"]}), tmp_path / f"{number:02d}.parquet")
    together = threading.Barrier(WAITING_THREADS)
    opened = pq.ParquetFile

    def open_together(path: str) -> pq.ParquetFile:
        together.wait(TOGETHER_TIMEOUT_S)
        return opened(path)

    source = InputSource(path=str(tmp_path), format="parquet")
    files = list_files((source,), tmp_path / "lake")
    monkeypatch.setattr(input_files.pq, "ParquetFile", open_together)
    pieces = cut_into_pieces(files, (source,))
    assert [piece.file.name for piece in pieces] == [f"{i:02d}.parquet" for i in range(WAITING_THREADS)]


def test_the_token_counts_of_shards_are_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for number in range(WAITING_THREADS):
        folder = tmp_path / f"attempt-{number}"
        folder.mkdir()
        (folder / "train.parquet").write_bytes(b"%d" % number)
        np.save(folder / "train.npy", np.array([number, 1]))
        outcomes.append({"attempt": folder.name, "shards": {"train": {"row_groups": [8, 3], "bytes": 1, "sha256": ""}}})
    together = threading.Barrier(WAITING_THREADS)
    load = np.load

    def load_together(file: BytesIO, allow_pickle: bool) -> np.ndarray:
        together.wait(TOGETHER_TIMEOUT_S)
        return load(file, allow_pickle=allow_pickle)

    monkeypatch.setattr(np, "load", load_together)
    settings = PackSettings(FolderStaging(FolderStore(tmp_path)), "", "", "bytes", "", 2, 0, 16, 8, "hash", 0.1, 0.0, True, 100)
    shards, tokens_V = language_manifest._name_shards(outcomes, "train", settings)
    assert tokens_V.tolist() == [sum(range(WAITING_THREADS)), WAITING_THREADS]
    assert [(tmp_path / shard.path).read_bytes() for shard in shards] == [b"%d" % number for number in range(WAITING_THREADS)]
