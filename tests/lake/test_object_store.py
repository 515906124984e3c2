"""A lake's place: a folder, S3, and an S3 that fails every fifth request, keep the same rules; and what is refused, and how."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.errors import AlreadyRunningError, StorageError
from pipelines.lake.claims import claimed
from pipelines.lake.live_folder import LiveFolder
from pipelines.lake.object_cache import ObjectCache
from pipelines.lake.object_store import ObjectStore
from pipelines.lake.staging import staged
from pipelines.lake.store import FolderStore, Store
from pipelines.lake.store_contract import tried
from tests.support.claim_holder import take_over
from tests.support.faulty_proxy import Asked, Fault, FaultyProxy, always, faulty_proxy, in_turn
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.processes
FAULTS = {Fault.SLOW_DOWN: 0.05, Fault.INTERNAL_ERROR: 0.03, Fault.CLOSED: 0.03, Fault.CUT: 0.05, Fault.LOST_ANSWER: 0.04}
SEED = 20261128
TAKEN = AlreadyRunningError("this", "is another's", "wait")


@pytest.fixture(autouse=True)
def _credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)


def store_on(server: S3Server | FaultyProxy, bucket: str, tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"s3://{bucket}/lake", json.dumps(server.options), ObjectCache(parent=str(tmp_path)))


@pytest.fixture(params=["folder", "S3", "faulty S3"])
def store(request: pytest.FixtureRequest, s3_server: S3Server, tmp_path: Path) -> Iterator[Store]:
    if request.param == "folder":
        yield FolderStore(tmp_path / "lake")
    elif request.param == "S3":
        yield store_on(s3_server, s3_server.new_bucket(), tmp_path)
    else:
        with faulty_proxy(s3_server.endpoint_url, FAULTS, SEED) as proxy:
            yield store_on(proxy, s3_server.new_bucket(), tmp_path)
            assert proxy.faults()


def test_every_rule_that_a_lake_relies_on_holds(store: Store) -> None:
    assert [(each.rule, each.said) for each in tried(store) if not each.holds] == []


def test_what_is_made_together_appears_with_its_last_object_and_nothing_is_left_beside(store: Store) -> None:
    with claimed(store, "claims/x", TAKEN) as claim, staged(store, "datasets/x/v1", claim) as staging:
        for number in range(3):
            with staging.folder(f"attempt-{number}") as folder:
                (folder / "train.parquet").write_bytes(b"%d" % number)
                (folder / "train.npy").write_bytes(b"")
        kept = [staging.kept_key(f"attempt-{number}/train.parquet", f"train-{number}.parquet") for number in (0, 2)]
        for number, key in zip((0, 2), kept, strict=True):
            staging.settle(f"attempt-{number}/train.parquet", f"train-{number}.parquet")
            assert staging.files.read(key) == b"%d" % number
        staging.sweep(kept)
        staging.files.put("manifest.json", "{}")
    version = store.below("datasets/x/v1")
    assert [version.read(key) for key in (*kept, "manifest.json")] == [b"0", b"2", b"{}"]
    assert sorted(version.names("")) == sorted({"manifest.json", *(key.partition("/")[0] for key in kept)})


def test_what_was_not_made_to_its_end_is_gone(store: Store) -> None:
    with (pytest.raises(ZeroDivisionError), claimed(store, "claims/x", TAKEN) as claim,
          staged(store, "datasets/x/v1", claim) as staging):
        with staging.folder("attempt-0") as folder:
            (folder / "train.parquet").write_bytes(b"x")
        raise ZeroDivisionError
    assert store.names("datasets/x/v1") == store.names("datasets/x") == []


def test_what_lies_there_is_left_alone_by_one_who_lost_the_claim_to_make_it(store: Store) -> None:
    with (pytest.raises(ZeroDivisionError), claimed(store, "claims/x", TAKEN) as claim,
          staged(store, "datasets/x/v1", claim) as staging):
        staging.files.put("mine", b"")
        take_over(store, "claims/x")
        store.put("datasets/x/v1/manifest.json", b"of the one who took it over")
        raise ZeroDivisionError
    assert store.read("datasets/x/v1/manifest.json") == b"of the one who took it over"


def test_a_creation_whose_answer_is_lost_counts_for_the_one_that_made_it(s3_server: S3Server, tmp_path: Path) -> None:
    proxy = FaultyProxy(s3_server.endpoint_url, in_turn([Fault.LOST_ANSWER], lambda asked: asked.method == "PUT"))
    bucket = s3_server.new_bucket()
    try:
        assert store_on(proxy, bucket, tmp_path).create("1", "mine")
        assert proxy.faults() == {Fault.LOST_ANSWER: 1}
    finally:
        proxy.close()
    store = store_on(s3_server, bucket, tmp_path)
    assert store.read("1") == b"mine"
    assert not store.create("1", "mine")  # the same content, of another


def test_a_conflict_of_two_creations_is_repeated(s3_server: S3Server, tmp_path: Path) -> None:
    proxy = FaultyProxy(s3_server.endpoint_url, in_turn([Fault.CONFLICT], lambda asked: asked.method == "PUT"))
    try:
        assert store_on(proxy, s3_server.new_bucket(), tmp_path).create("1", "mine")
    finally:
        proxy.close()


def test_an_object_that_is_cut_off_as_it_comes_is_fetched_again(s3_server: S3Server, tmp_path: Path) -> None:
    content, bucket = os.urandom(300_000), s3_server.new_bucket()
    store_on(s3_server, bucket, tmp_path).put("x.bin", content)
    proxy = FaultyProxy(s3_server.endpoint_url, in_turn([Fault.CUT, Fault.CUT], lambda asked: asked.method == "GET"))
    try:
        store = store_on(proxy, bucket, tmp_path)
        assert store.local_path("x.bin").read_bytes() == content
        assert proxy.faults() == {Fault.CUT: 2}
    finally:
        proxy.close()


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(StorageError) as caught:
        act()
    return str(caught.value)


def test_what_keeps_a_lake_from_being_used_is_told_with_place_and_remedy(
        s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = store_on(s3_server, "no-such-bucket", tmp_path)
    for act in (lambda: nowhere.put("a", b""), lambda: nowhere.read("a"), lambda: nowhere.create("a", b"")):
        assert "s3://no-such-bucket/lake/a: cannot be" in refusal(act)
        assert "The specified bucket does not exist; check storage.root, storage.options" in refusal(act)
    bucket = s3_server.new_bucket()
    denied = FaultyProxy(s3_server.endpoint_url, always(Fault.ACCESS_DENIED))
    try:
        store = store_on(denied, bucket, tmp_path)
        for act in (lambda: store.put("a", b""), lambda: store.names("")):
            assert "cannot be" in refusal(act) and "Access Denied" in refusal(act)
        assert len(denied.answered) <= 10  # nobody asks again
    finally:
        denied.close()
    mistaken = ObjectStore(f"s3://{bucket}/lake", json.dumps({"endpoint": s3_server.endpoint_url}))
    assert "the options are not accepted: " in refusal(lambda: mistaken.put("a", b""))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    asked_without = ObjectStore(f"s3://{bucket}/other", json.dumps({**s3_server.options, "skip_instance_cache": True}))
    assert "Unable to locate credentials" in refusal(lambda: asked_without.put("a", b""))


def test_a_place_that_cannot_keep_two_writers_apart_is_refused_unless_there_is_only_one(tmp_path: Path) -> None:
    url = "memory://lake-of-a-test"
    assert "set storage.single_writer: true" in refusal(lambda: ObjectStore(url).create("1", b""))
    alone = ObjectStore(url, single_writer=True, cache=ObjectCache(parent=str(tmp_path)))
    assert alone.create("1", b"") and not alone.create("1", b"")


def test_copies_are_shared_bounded_and_made_once(s3_server: S3Server, tmp_path: Path) -> None:
    bucket, gets = s3_server.new_bucket(), list[Asked]()

    def note(asked: Asked) -> Fault | None:
        if asked.method == "GET" and asked.key:
            gets.append(asked)
        return None

    proxy = FaultyProxy(s3_server.endpoint_url, note)
    try:
        store = ObjectStore(f"s3://{bucket}/lake", json.dumps(proxy.options), ObjectCache(2500, str(tmp_path)))
        for name in "abc":
            store.put(name, name * 1000)
        with_threads = [threading.Thread(target=store.local_path, args=("a",)) for _ in range(4)]
        for thread in with_threads:
            thread.start()
        for thread in with_threads:
            thread.join()
        assert len(gets) == 1
        first = store.local_path("a")
        held = first.open("rb")
        store.local_path("b")
        store.local_path("c")  # the oldest goes
        assert not first.exists() and held.read() == b"a" * 1000 and len(gets) == 3
        held.close()
        store.put("c", "d" * 900)
        assert store.local_path("c").read_bytes() == b"d" * 900  # never an older version
        store.put("large", "x" * 3000)
        assert "has no room for a copy of 3,000 bytes" in refusal(lambda: store.local_path("large"))
    finally:
        proxy.close()


def test_a_folder_for_copies_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / f"sparkring-cache-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert "is not a folder that only this user can write to" in refusal(lambda: ObjectCache(parent=str(tmp_path)).folder)
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert "is not a folder that only this user can write to" in refusal(lambda: ObjectCache(parent=str(tmp_path)).folder)


def test_records_that_another_machine_kept_come_all_or_not_at_all(
        s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store_on(s3_server, s3_server.new_bucket(), tmp_path)
    driver, other = (LiveFolder(tmp_path / name / "r/attempt-000", kept, tmp_path / name) for name in ("driver", "other"))
    driver.make()
    for rank in range(2):
        driver.record(rank).write_text(f"{rank}\n")
    driver.keep()
    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(ObjectStore, "read", lambda store, key: failing(key) if "00001" in key else b"0\n")
        other.records()
    assert not other.path.exists()
    assert [path.read_text() for path in other.records().values()] == ["0\n", "1\n"]


def failing(key: str) -> bytes:
    raise StorageError(key, "cannot be read")
