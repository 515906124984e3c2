"""What the lake may expect of every store: an object is there whole or not at all, whoever reads and whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import StorageError
from pipelines.lake import store as store_module
from pipelines.lake.store import FolderStore, Store, synced_file

STORES: dict[str, Callable[[Path], Store]] = {"folder": FolderStore}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path / "my lake")


def test_an_object_is_read_as_it_was_put_last(store: Store) -> None:
    store.put("tables/runs/a.json", b"first, and longer")
    store.put("tables/runs/a.json", "zweitens, \u00e4")
    assert store.read("tables/runs/a.json").decode() == "zweitens, \u00e4"
    assert store.local_path("tables/runs/a.json").read_bytes() == store.read("tables/runs/a.json")
    assert store.place("tables/runs/a.json").endswith("my lake/tables/runs/a.json")


def test_an_object_appears_when_its_writer_is_done_and_the_old_one_is_there_until_then(store: Store) -> None:
    store.put("models/r/best/weights", b"old")
    with store.writer("models/r/best/weights") as file, store.writer("models/r/last/weights") as fresh:
        file.write(b"new" * 100_000)
        fresh.write(b"x")
        assert store.read("models/r/best/weights") == b"old"
        assert store.facts("models/r/last/weights") is None
        assert store.names("models/r/last") == []
    assert store.read("models/r/best/weights") == b"new" * 100_000
    assert store.names("models/r") == ["best", "last"]


def test_a_writer_that_fails_leaves_what_was_there(store: Store) -> None:
    store.put("a/b", b"old")
    for key in ("a/b", "a/c"):
        with pytest.raises(ZeroDivisionError), store.writer(key) as file:
            file.write(b"half")
            raise ZeroDivisionError
    assert (store.read("a/b"), store.names("a")) == (b"old", ["b"])


def test_the_facts_of_an_object_are_its_size_and_when_it_was_written(store: Store) -> None:
    before_s = time.time()
    store.put("a/b", b"12345")
    facts = store.facts("a/b")
    assert facts is not None
    assert facts.bytes == 5
    assert before_s - 2 <= facts.modified_s <= time.time() + 2
    assert store.facts("a/c") is store.facts("z/c") is store.facts("a/b/c") is None


def test_names_are_those_right_below_a_prefix(store: Store) -> None:
    for key in ("datasets/x/v2/m", "datasets/x/v1/manifest.json", "datasets/x/v1/train-0.parquet", "datasets/xy/v3/m"):
        store.put(key, b"")
    assert store.names("datasets") == ["x", "xy"]
    assert store.names("datasets/x") == ["v1", "v2"]
    assert store.names("datasets/x/v1") == ["manifest.json", "train-0.parquet"]
    assert store.names("models") == store.names("datasets/x/v1/manifest.json") == []


def test_what_lies_below_a_prefix_is_a_store_of_its_own(store: Store) -> None:
    store.put("datasets/x/v1/manifest.json", b"{}")
    version = store.below("datasets/x/v1")
    assert (version.names(""), version.read("manifest.json")) == (["manifest.json"], b"{}")
    assert version.place() == store.place("datasets/x/v1")
    assert version.place("shard") == store.place("datasets/x/v1/shard")


def test_a_part_of_an_object_is_read_by_pyarrow_itself(store: Store) -> None:
    with store.writer("tables/t/a.parquet") as file:
        pq.write_table(pa.table({"x": list(range(1000))}), file, row_group_size=100)
    with store.open("tables/t/a.parquet") as content, pq.ParquetFile(content) as parquet:
        assert isinstance(content, pa.NativeFile)
        assert parquet.read_row_group(7).column("x")[0].as_py() == 700


@pytest.mark.parametrize("read", [lambda store, key: store.read(key), lambda store, key: store.open(key)], ids=["read", "open"])
def test_reading_what_is_not_there_says_so(store: Store, read: Callable[[Store, str], object]) -> None:
    with pytest.raises(FileNotFoundError):
        read(store, "a/b")


def test_a_folder_appears_whole_or_not_at_all(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.new_folder("datasets/x/v1") as staging:
        (staging / "shard").write_bytes(b"half")
        raise ZeroDivisionError
    assert store.names("datasets/x") == []
    with store.new_folder("datasets/x/v1") as staging:
        (staging / "shard").write_bytes(b"whole")
        (staging / "manifest.json").write_bytes(b"{}")
        assert store.names("datasets/x") == []
    assert store.names("datasets/x/v1") == ["manifest.json", "shard"]
    assert store.read("datasets/x/v1/shard") == b"whole"


def test_a_folder_that_another_writer_published_first_stays_as_it_is(store: Store) -> None:
    with pytest.raises(StorageError, match="datasets/x/v1"), store.new_folder("datasets/x/v1") as ours:
        (ours / "shard").write_bytes(b"ours")
        with store.new_folder("datasets/x/v1") as theirs:
            (theirs / "shard").write_bytes(b"theirs")
    assert store.read("datasets/x/v1/shard") == b"theirs"


KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.lake.store import FolderStore
store = FolderStore(Path(sys.argv[1]))
with store.new_folder("datasets/x/v1") as staging, store.writer("datasets/x/v1.parquet") as file:
    (staging / "shard").write_bytes(b"half")
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.processes
def test_what_a_killed_writer_left_is_never_seen_and_can_be_cleared(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("datasets/x/v10", b"")  # its name begins as the other's
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert store.names("datasets/x") == ["v10"]
    assert len(os.listdir(tmp_path / "datasets/x")) == 3
    with store.writer("datasets/x/v10") as file:
        file.write(b"not litter of v1")
        store.clear_litter("datasets/x/v1")
        store.clear_litter("datasets/x/v1.parquet")
        store.clear_litter("nowhere/x")
    assert (store.read("datasets/x/v10"), os.listdir(tmp_path / "datasets/x")) == (b"not litter of v1", ["v10"])


def test_a_store_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file where the folder should be")
    store = FolderStore(tmp_path)
    with pytest.raises(StorageError, match="tables/runs/a: cannot be written: .*storage.root"):
        store.put("tables/runs/a", b"")
    with pytest.raises(StorageError, match=r"cannot be written"), store.new_folder("tables/runs/b"):
        pass


def test_a_large_object_is_on_the_disk_piece_by_piece_and_all_of_it_before_it_is_visible(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int, bool]] = []
    target = tmp_path / "a" / "weights"
    for name in ("fdatasync", "fsync"):
        monkeypatch.setattr(os, name, lambda descriptor, name=name: seen.append(
            (name, os.fstat(descriptor).st_size, target.exists())))
    monkeypatch.setattr(store_module, "SYNC_BYTES", 100_000)
    with FolderStore(tmp_path).writer("a/weights") as file:
        for _ in range(10):
            file.write(bytes(40_000))
    assert seen == [("fdatasync", 120_000, False), ("fdatasync", 240_000, False), ("fdatasync", 360_000, False),
                    ("fsync", 400_000, False)]
    assert target.stat().st_size == 400_000


def test_a_file_of_a_folder_that_is_not_published_yet_is_on_the_disk_once_closed(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    file = synced_file(tmp_path / "shard")
    file.write(b"1234")
    assert synced == []
    file.close()
    assert synced == [4]
