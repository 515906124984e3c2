"""What killed writers leave is found and removed, and nothing that anybody has or makes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.errors import AlreadyRunningError
from pipelines.lake.claims import claimed
from pipelines.lake.litter import OLD_S, litter, remove_litter
from pipelines.lake.paths import Lake
from pipelines.lake.runs import AttemptState, RunState
from pipelines.lake.staging import staged
from tests.support.example_data import publish_example
from tests.support.s3_server import S3Server

TAKEN = AlreadyRunningError("this", "is another's", "wait")
VERSION = "0123456789abcdef"


@pytest.fixture(params=["folder", pytest.param("S3", marks=pytest.mark.processes)])
def lake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    if request.param == "folder":
        yield Lake.at(tmp_path / "lake")
        return
    server: S3Server = request.getfixturevalue("s3_server")
    for name, value in {**server.environment, "TMPDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    yield Lake.at(json.dumps({"root": f"s3://{server.new_bucket()}/lake", "options": server.options,
                              "cache_folder": str(tmp_path)}))


def whats(lake: Lake) -> list[str]:
    return [each.what for each in litter(lake)]


class Killed(BaseException):
    """As nothing is cleared up when a process is killed."""


def leave_half_made(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("pipelines.lake.staging.ObjectStaging.sweep", lambda *_: None)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        with (claimed(lake.store, lake.version_claim("texts", VERSION), TAKEN) as claim,
              staged(lake.store, lake.dataset("texts", VERSION), claim) as staging):
            staging.files.put("tokenizer.json", "{}")
            with staging.folder("attempt-000000-ab") as folder:
                (folder / "train.parquet").write_bytes(b"x")
            raise Killed


def test_a_version_that_was_never_made_to_its_end_is_litter_unless_somebody_makes_it_now(
        lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_half_made(lake, monkeypatch)
    with claimed(lake.store, lake.version_claim("texts", VERSION), TAKEN):
        assert whats(lake) == []
    (found,) = litter(lake)
    assert found.what == f"what a prepare of dataset texts {VERSION} left" and len(found.keys) == 2
    remove_litter(lake, found)
    assert [key for key in lake.store.keys("") if not key.startswith("claims/")] == []


def test_what_is_published_is_none(lake: Lake) -> None:
    if lake.store.folders_appear_whole:
        publish_example(lake)
    run = lake.run("r")
    AttemptState(0, 1, 1, "cpu", status="completed").save(run)
    RunState("r", "example", "h", "example", "v1", "tokens", "fp32", 10, 1000).save(run)
    lake.store.put(f"{lake.model('r', 'best')}/model.safetensors", b"x")
    lake.store.put(f"{lake.model('r', 'last')}/model-7-00001-of-00002.safetensors", b"x")
    lake.store.put(f"{lake.model('r', 'last')}/model.safetensors.index.json",
                   json.dumps({"weight_map": {"a": "model-7-00001-of-00002.safetensors"}}))
    lake.store.put(f"{lake.table('steps')}/r-000-00000.parquet", b"x")
    assert whats(lake) == []


def test_an_attempt_that_never_began_and_weights_that_no_index_names_are_litter_once_nobody_holds_the_run(lake: Lake) -> None:
    run = lake.run("r")
    lake.store.put(run.config(3), "{}")
    lake.store.put(f"{lake.model('r', 'last')}/model-7-00001-of-00002.safetensors", b"x")
    with claimed(lake.store, run.claim, TAKEN):
        assert whats(lake) == []
    assert whats(lake) == ["attempt attempt-003 of run r, which was never begun",
                           "weights that the last model of run r does not name"]
    for each in litter(lake):
        remove_litter(lake, each)
    assert whats(lake) == []


def test_an_unfinished_file_is_left_alone_until_it_is_old(tmp_path: Path) -> None:
    lake = Lake.at(tmp_path)
    left = tmp_path / "runs/r/.tmp-report.html-0123456789ab"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    assert whats(lake) == []
    os.utime(left, (time.time() - OLD_S - 10,) * 2)
    assert whats(lake) == ["files that were never finished"]


def test_what_was_published_or_begun_after_it_was_found_is_not_removed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_half_made(lake, monkeypatch)
    run = lake.run("r")
    lake.store.put(run.config(0), "{}")
    found = litter(lake)
    assert len(found) == 2
    before = [key for key in lake.store.keys("") if not key.startswith("claims/")]
    if not lake.store.folders_appear_whole:
        shard = next(key.partition(f"{VERSION}/")[2] for key in before if key.endswith("train.parquet"))
        lake.store.put(f"{lake.dataset('texts', VERSION)}/manifest.json", json.dumps({"splits": {"train": [{"path": shard}]}}))
    AttemptState(0, 1, 1, "cpu").save(run)
    with claimed(lake.store, lake.version_claim("texts", VERSION), TAKEN):  # in a folder: it is being made again
        for each in found:
            remove_litter(lake, each)
    assert set(before) <= set(lake.store.keys(""))
    for each in found:
        remove_litter(lake, each)
    assert (set(before) <= set(lake.store.keys(""))) == (not lake.store.folders_appear_whole)
