"""Inputs at URLs that Python reads, on a real S3 server: the same files, records and shards as from a disk."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.config.datasets import InputPath, InputSource
from pipelines.config.input_schemes import python_reads
from pipelines.errors import DataError, ResourceError
from pipelines.lake.file_systems import system_at
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.prepare import input_files
from pipelines.prepare import ranged_file as ranged_file_module
from pipelines.prepare.images.image_pieces import format_of_files
from pipelines.prepare.input_files import InputFile, as_listed, opened_input, parquet_file
from pipelines.prepare.inputs import fingerprint, list_files, spark_reads
from pipelines.prepare.prepare import plan_prepare, prepare, prepare_planned
from pipelines.prepare.text import local_documents
from pipelines.prepare.text.local_documents import cut_into_pieces, read_piece
from tests.prepare.conftest import make_recipe, make_text, write_texts
from tests.prepare.images.conftest import encoded, image_recipe, picture, write_idx, write_pictures
from tests.support.faulty_proxy import Fault, faulty_proxy
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.processes

Report = Callable[[str], None]
NOWHERE = Path("/nowhere")
SEED = 7  # of the requests that fail


@dataclass(frozen=True)
class Bucket:
    """A new one, reached by the environment alone."""

    url: str
    options: str

    def put(self, key: str, content: bytes) -> None:
        system, path = system_at(f"{self.url}/{key}", self.options)
        system.pipe_file(path, content)

    def take(self, folder: Path) -> None:
        """The files of a folder, each under its name in it."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.put(f"{folder.name}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def lake(self, key: str) -> Lake:
        return Lake.at(json.dumps({"root": f"{self.url}/{key}", "options": json.loads(self.options)}))


@pytest.fixture
def bucket(s3_server: S3Server, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Workers of the session, which may have started before, are told where it is by the context."""
    environment = {**s3_server.environment, "AWS_ENDPOINT_URL": s3_server.endpoint_url}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    told = spark.sparkContext.environment
    before = dict(told)
    told.update(environment)
    yield Bucket(f"s3://{s3_server.new_bucket()}", json.dumps(s3_server.options))
    told.clear()
    told.update(before)


def listed(path: str, **settings: Any) -> list[InputFile]:
    return list_files((InputPath(path=path, **settings),), NOWHERE)


def names(path: str, **settings: Any) -> list[str]:
    return [file.name for file in listed(path, **settings)]


def shards_of(lake: Lake, manifest: Manifest) -> dict[str, bytes]:
    return {shard.path: lake.store.read(f"{lake.dataset(manifest.name, manifest.version)}/{shard.path}")
            for split in manifest.splits for shard in manifest.shards(split)}


def test_the_scheme_alone_says_who_reads_a_url():
    assert [python_reads(path) for path in ("s3://a/b", "gs://a", "https://a/b", "s3a://a", "hdfs://a", "/s3/a", "s3:/a")] == [
        True, True, True, False, False, False, False]
    assert [spark_reads(path) for path in ("s3://a/b", "s3a://a", "viewfs://a/b", "file:///a", "/a")] == [
        False, True, True, False, False]


TREE = ["a.txt", "b/c.txt", "b/d.md", "b/_x/e.txt", "b/.x/f.txt", "b/_SUCCESS", ".g.txt", "_h.txt", "_day=1/i.txt",
        "drafts/j.txt", "b/drafts/k.txt", "[l].txt", "é ü+%25.txt"]


@pytest.mark.parametrize(("below", "settings"), [
    ("", {}), ("/", {}), ("/b", {}), ("/a.txt", {}), ("", {"pattern": "*.md"}), ("", {"exclude": ("drafts", "a.*")}),
    ("/*.txt", {}), ("/*/*.txt", {}), ("/b*", {}), ("/**/*.txt", {}), ("/.g.txt", {}), ("/_h.txt", {}), ("/[l].txt", {}),
    ("/[ab].txt", {}), ("/.?.txt", {}), ("/b/_x", {}), ("/b/[cd]*", {}), ("/*=1", {})])
def test_the_same_names_are_listed_as_on_a_disk(bucket: Bucket, tmp_path: Path, below: str, settings: dict[str, Any]) -> None:
    folder = tmp_path / "in"
    for name in TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    bucket.take(folder)
    for key in ("in/", "in/b/", "in/empty/"):  # what some tools leave for a folder
        system_at(bucket.url, bucket.options)[0].call_s3("put_object", Bucket=bucket.url[5:], Key=key, Body=b"")

    def outcome(root: str) -> Any:
        try:
            return [(file.name, file.bytes) for file in listed(f"{root}/in{below}", **settings)]
        except DataError as error:
            return error.problem.replace(root, "")

    assert outcome(bucket.url) == outcome(str(tmp_path))


def test_a_listed_file_is_known_by_its_url_and_read_from_it(bucket: Bucket) -> None:
    for name in ("é ü+%25.txt", "[l]?.txt"):
        bucket.put(f"in/{name}", name.encode())
    for file in listed(f"{bucket.url}/in"):
        assert file.path == f"{bucket.url}/in/{file.name}"
        with as_listed(file), opened_input(file) as stream:
            assert stream.read().decode() == file.name


def test_the_lakes_own_objects_are_left_out_of_an_input_that_holds_them(bucket: Bucket) -> None:
    for key in ("a.txt", "lake/tables/b.txt", "lake2/c.txt"):
        bucket.put(key, b"x")
    inputs = (InputPath(path=bucket.url),)
    assert [file.name for file in list_files(inputs, NOWHERE, bucket.lake("lake").store)] == ["a.txt", "lake2/c.txt"]
    assert names(bucket.url) == ["a.txt", "lake/tables/b.txt", "lake2/c.txt"]


def test_the_lakes_options_are_those_of_inputs_on_its_file_system(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("in/a.txt", b"x")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    inputs = (InputPath(path=f"{bucket.url}/in"),)
    (file,) = list_files(inputs, NOWHERE, bucket.lake("lake").store)
    assert json.loads(file.options) == json.loads(bucket.options)
    with as_listed(file), opened_input(file) as stream:
        assert stream.read() == b"x"


@pytest.mark.parametrize(("path", "settings", "words"), [
    ("{bucket}/none", {}, "is not there .*give a file, a folder or a glob"),
    ("{bucket}/none*.txt", {}, "matches nothing; give a file, a folder or a glob"),
    ("{bucket}/in", {"pattern": "*.md"}, r"holds no files that match '\*.md'"),
    ("{bucket}", {"pattern": "*.md"}, r"holds no files that match '\*.md'"),
    ("s3://no-such-bucket-of-ours", {}, "is not there .*give a file, a folder or a glob"),
    ("s3://no-such-bucket-of-ours/in/*.txt", {}, "matches nothing"),
    ("gs://bucket/in", {}, "needs a package that is not installed .*on every machine"),
])
def test_an_input_that_gives_nothing_is_named_with_what_to_do(
        bucket: Bucket, path: str, settings: dict[str, Any], words: str) -> None:
    bucket.put("in/a.txt", b"x")
    with pytest.raises(DataError, match=rf"(?s)prepare\.inputs\.0\.path: .*{words}"):
        listed(path.format(bucket=bucket.url), **settings)


def test_who_may_not_read_is_told_what_to_check(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("in/a.txt", b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    # the file system is kept by fsspec: other options, another one
    lake = Lake.at(json.dumps({"root": f"{bucket.url}/lake", "options": {**json.loads(bucket.options), "use_ssl": False}}))
    with pytest.raises(DataError, match=r"prepare\.inputs\.0\.path: 's3://.*cannot be read .*credentials"):
        list_files((InputPath(path=f"{bucket.url}/in"),), NOWHERE, lake.store)


@contextmanager
def refusing_server() -> Iterator[str]:
    """The URL of a server that forbids everything."""
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("path", ["s3://bucket", "s3://bucket/in", "s3://bucket/in/*.txt"])
def test_a_server_that_forbids_is_told_with_what_to_check(bucket: Bucket, path: str) -> None:
    with refusing_server() as url:
        lake = Lake.at(json.dumps({"root": "s3://bucket/lake", "options": {"endpoint_url": url}}))
        with pytest.raises(DataError, match=r"prepare\.inputs\.0\.path: 's3://.*cannot be read .*; check the URL, .* do there"):
            list_files((InputPath(path=path),), NOWHERE, lake.store)


def test_an_object_that_a_task_may_not_read_is_told_with_what_to_check() -> None:
    with refusing_server() as url, pytest.raises(DataError, match="a.txt cannot be read .*; check the URL, .* do there"):
        file = InputFile(0, "s3://bucket/a.txt", "a.txt", 5, "1", json.dumps({"endpoint_url": url, "anon": True}))
        with as_listed(file), opened_input(file):
            """Not reached."""


def test_a_file_that_names_another_url_is_refused(bucket: Bucket) -> None:
    system_at(bucket.url, bucket.options)[0].call_s3("put_object", Bucket=bucket.url[5:], Key="in/a::file:", Body=b"x")
    for path in (f"{bucket.url}/in", f"{bucket.url}/in/a::file:///etc/hostname"):
        with pytest.raises(DataError, match="by which URLs are chained; rename it, or leave it out"):
            listed(path)


def test_a_fingerprint_stays_until_an_object_changes(bucket: Bucket) -> None:
    bucket.put("in/a.txt", b"one")
    bucket.put("in/b.txt", b"two")
    before = fingerprint(listed(f"{bucket.url}/in"))
    bucket.put("in/a.txt", b"one")
    assert fingerprint(listed(f"{bucket.url}/in")) == before
    bucket.put("moved/a.txt", b"one")
    bucket.put("moved/b.txt", b"two")
    assert fingerprint(listed(f"{bucket.url}/moved")) == before
    bucket.put("in/a.txt", b"uno")  # as long as before
    assert fingerprint(listed(f"{bucket.url}/in")) != before


def test_content_stands_for_a_version_where_nothing_is_one(bucket: Bucket) -> None:
    bucket.put("in/a.txt", b"one")
    (file,) = listed(f"{bucket.url}/in")
    assert file.version and fingerprint([file]) != fingerprint([file._replace(version="")])


def records(*sources: dict[str, Any], max_document_bytes: int = 5000, lake: Lake | None = None) -> list[tuple[Any, ...]]:
    """What the inputs hold, without where they are."""
    section = make_recipe(*sources, max_document_bytes=max_document_bytes).prepare
    pieces = cut_into_pieces(list_files(section.inputs, NOWHERE, None if lake is None else lake.store), section.inputs)
    return [(piece.file.name, piece.start, record.position, record.content, record.reason)
            for piece in pieces for record in read_piece(piece, section)]


def write_kinds(folder: Path) -> list[dict[str, Any]]:
    """Inputs of every kind below a folder, by their paths in it."""
    folder.mkdir()
    raws = [make_text(seed).encode() for seed in range(60)]
    lines = [json.dumps({"text": raw.decode()}).encode() for raw in raws]
    lines.insert(20, json.dumps({"text": "x" * 60_000}).encode())  # longer than several pieces
    write_texts(folder / "texts", 5)
    (folder / "cut.txt").write_bytes(b"\n--\n".join([*raws[:30], b"y" * 20_000, *raws[30:]]))
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    (folder / "rows.gz").write_bytes(gzip.compress(b"\n".join(lines), mtime=0))
    (folder / "rows.zst").write_bytes(pa.compress(b"\n".join(lines), codec="zstd", asbytes=True))
    (folder / "empty.txt").write_bytes(b"")
    pq.write_table(pa.table({"text": pa.array(raws, pa.binary()), "other": list(range(60))}), folder / "table.parquet",
                   row_group_size=7)
    jsonl = [{"path": name, "format": "jsonl"} for name in ("rows.jsonl", "rows.gz", "rows.zst")]
    return [{"path": "texts"}, {"path": "cut.txt", "delimiter": "\n--\n"}, *jsonl, {"path": "empty.txt"},
            {"path": "table.parquet", "format": "parquet"}]


def at(root: str | Path, sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**source, "path": f"{root}/{source['path']}"} for source in sources]


@pytest.mark.parametrize("ahead", [100, 3000, None])
def test_every_kind_of_text_gives_the_same_records_as_from_a_disk(
        bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int | None) -> None:
    sources = write_kinds(tmp_path / "in")
    bucket.take(tmp_path / "in")
    monkeypatch.setattr(local_documents, "PIECE_BYTES", 8000)
    for module, name in ((local_documents, "AHEAD_BYTES"), (local_documents, "RANGE_AHEAD_BYTES"),
                         (input_files, "PARQUET_AHEAD_BYTES")):
        monkeypatch.setattr(module, name, ahead or getattr(module, name))
    here, there = records(*at(tmp_path / "in", sources)), records(*at(f"{bucket.url}/in", sources))
    assert there == here
    assert {start for name, start, *_ in there if name == "cut.txt"} > {0, 8000}
    assert sum(reason == "oversized" for *_, reason in there) == 4


def test_a_dataset_of_every_kind_is_the_same_from_a_url_as_from_a_disk(
        bucket: Bucket, spark: SparkSession, tmp_path: Path, silent: Report) -> None:
    sources, made = write_kinds(tmp_path / "in"), []
    bucket.take(tmp_path / "in")
    for root, lake in ((tmp_path / "in", Lake.at(tmp_path / "lake")), (f"{bucket.url}/in", Lake.at(tmp_path / "other lake"))):
        recipe = make_recipe(*at(root, sources), max_document_bytes=5000, tokenizer={"kind": "bpe", "vocabulary_size": 300})
        manifest = prepare(spark, recipe, lake, silent)
        made.append((shards_of(lake, manifest), manifest.counts))
    assert made[0] == made[1]
    said: list[str] = []
    assert prepare(spark, recipe, lake, said.append) == manifest
    assert "nothing to do" in said[0]


def test_a_file_that_many_tasks_read_is_the_same_from_a_url_as_from_a_disk(
        bucket: Bucket, spark: SparkSession, tmp_path: Path, silent: Report) -> None:
    """Of three real pieces, read in ranges."""
    random, made = np.random.default_rng(0), []
    (tmp_path / "in").mkdir()
    with open(tmp_path / "in" / "rows.jsonl", "w", encoding="utf-8") as file:
        while file.tell() < 2 * local_documents.PIECE_BYTES + 100_000:
            file.write(json.dumps({"text": " ".join(map(str, random.integers(0, 10**9, 20_000)))}) + "\n")
    bucket.take(tmp_path / "in")
    for root, lake in ((tmp_path / "in", Lake.at(tmp_path / "lake")), (f"{bucket.url}/in", Lake.at(tmp_path / "other lake"))):
        recipe = make_recipe({"path": f"{root}/rows.jsonl", "format": "jsonl"}, sequence_length=512)
        manifest = prepare(spark, recipe, lake, silent)
        made.append((shards_of(lake, manifest), manifest.counts))
    assert made[0] == made[1]


def test_a_lake_and_its_inputs_may_lie_in_one_bucket(
        bucket: Bucket, spark: SparkSession, tmp_path: Path, silent: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "texts", 20)
    bucket.take(tmp_path / "texts")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    del spark.sparkContext.environment["AWS_ENDPOINT_URL"]
    lake = bucket.lake("lake")
    manifest = prepare(spark, make_recipe(bucket.url), lake, silent)
    assert (manifest.counts["input_records"], len(shards_of(lake, manifest)) > 0) == (20, True)
    assert plan_prepare(make_recipe(bucket.url), lake).exists


def write_images(folder: Path) -> list[dict[str, Any]]:
    """Inputs of images of every kind below a folder."""
    write_pictures(folder / "folders", {"cat": 5, "dog": 6}, 6, 5)
    write_pictures(folder / "named/pictures", {"all": 6}, 6, 5, first_seed=100)
    rows = "".join(f"all/{seed:04d},{'cat' if seed % 2 else 'dog'}\n" for seed in range(100, 106))
    (folder / "named/labels.csv").write_text("image,label\n" + rows)
    (folder / "tables").mkdir()
    values = [picture(seed, 6, 5) for seed in range(200, 209)]
    pq.write_table(pa.table({"image": [encoded(value) for value in values], "label": ["cat", "dog", "cat"] * 3}),
                   folder / "tables/a.parquet", row_group_size=4)
    return [{"path": "folders"}, {"path": "named/pictures", "labels": {"path": "named/labels.csv"}}, {"path": "tables"}]


def test_images_of_every_kind_are_the_same_from_a_url_as_from_a_disk(
        bucket: Bucket, spark: SparkSession, tmp_path: Path, silent: Report) -> None:
    sources, made = write_images(tmp_path / "in"), []
    write_idx(tmp_path / "idx", np.stack([picture(seed, 6, 5) for seed in range(300, 340)]), np.arange(40, dtype=np.uint8) % 2)
    bucket.take(tmp_path / "in")
    bucket.take(tmp_path / "idx")
    for root, lake in ((str(tmp_path), Lake.at(tmp_path / "lake")), (bucket.url, Lake.at(tmp_path / "other lake"))):
        found = at(f"{root}/in", sources)
        found[1] = {**found[1], "labels": {"path": f"{root}/in/named/labels.csv"}}
        for inputs in (found, [{"path": f"{root}/idx"}]):
            manifest = prepare(spark, image_recipe(*inputs), lake, silent)
            made.append((shards_of(lake, manifest), manifest.counts))
    assert made[:2] == made[2:]


def test_a_dataset_of_petastorms_is_recognised_by_what_lies_beside_its_files(bucket: Bucket, tmp_path: Path) -> None:
    write_images(tmp_path / "in")
    bucket.take(tmp_path / "in" / "tables")
    source = image_recipe(f"{bucket.url}/tables").prepare.inputs[0]
    assert format_of_files(source, listed(f"{bucket.url}/tables")) == "table"
    bucket.put("tables/_common_metadata", b"")
    assert format_of_files(source, listed(f"{bucket.url}/tables")) == "petastorm"


def test_an_object_that_changes_while_it_is_read_stops_prepare_and_nothing_is_published(
        bucket: Bucket, spark: SparkSession, tmp_path: Path, lake: Lake, silent: Report) -> None:
    write_texts(tmp_path / "texts", 20)
    bucket.take(tmp_path / "texts")
    recipe = make_recipe(f"{bucket.url}/texts")
    plan = plan_prepare(recipe, lake)
    bucket.put("texts/0007.txt", b"other " + (tmp_path / "texts/0007.txt").read_bytes()[6:])
    with pytest.raises(DataError, match=r"prepare\.inputs\.0\.path: s3://.*0007\.txt: input changed while it was read"):
        prepare_planned(lambda: spark, plan, recipe, lake, silent)
    assert not list((lake.root / lake.datasets(recipe.name)).glob("[!.]*"))


def test_requests_that_fail_in_passing_are_made_again(bucket: Bucket, s3_server: S3Server, tmp_path: Path) -> None:
    sources = write_kinds(tmp_path / "in")
    bucket.take(tmp_path / "in")
    shares = {Fault.SLOW_DOWN: 0.1, Fault.CLOSED: 0.05, Fault.RESET: 0.05, Fault.CUT: 0.1}
    with faulty_proxy(s3_server.endpoint_url, shares, SEED) as proxy:
        lake = Lake.at(json.dumps({"root": f"{bucket.url}/lake", "options": proxy.options}))
        assert records(*at(f"{bucket.url}/in", sources), lake=lake) == records(*at(tmp_path / "in", sources))
        assert proxy.faults()


@pytest.mark.parametrize("whole", [True, False])
def test_an_object_that_changes_or_goes_between_two_reads_is_named(bucket: Bucket, whole: bool) -> None:
    for change in (lambda: bucket.put("in/a.txt", b"b" * 10_000), lambda: bucket.put("in/a.txt", b"a" * 5_000),
                   lambda: system_at(bucket.url, "{}")[0].rm_file(f"{bucket.url}/in/a.txt")):
        bucket.put("in/a.txt", b"a" * 10_000)
        (file,) = listed(f"{bucket.url}/in")

        def read(change: Callable[[], None] = change, file: InputFile = file) -> None:
            with as_listed(file), opened_input(file, 10_000 if whole else 10) as stream:
                stream.read(10)
                change()
                stream.read()

        with pytest.raises(DataError, match=r"a\.txt: input changed while it was read, from 10,000 bytes of version "):
            read()


def test_a_damaged_object_is_named(bucket: Bucket) -> None:
    bucket.put("in/a.gz", gzip.compress(os.urandom(5000))[:-100])
    bucket.put("in/a.parquet", b"PAR1" + bytes(100))
    with pytest.raises(DataError, match=r"a\.gz cannot be read"):
        records({"path": f"{bucket.url}/in/a.gz"}, max_document_bytes=10_000)
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        records({"path": f"{bucket.url}/in/a.parquet", "format": "parquet"})


def test_a_plan_needs_no_spark(bucket: Bucket, tmp_path: Path, lake: Lake) -> None:
    write_texts(tmp_path / "texts", 3)
    bucket.take(tmp_path / "texts")

    def no_session() -> SparkSession:
        raise ResourceError("Spark", "is still starting", "wait")

    recipe, said = make_recipe(f"{bucket.url}/texts"), list[str]()
    plan = plan_prepare(recipe, lake)
    assert (plan.num_files, plan.version is not None, plan.exists) == (3, True, False)
    with pytest.raises(ResourceError, match="still starting"):
        prepare_planned(no_session, plan, recipe, lake, said.append)
    assert any("tokenizer ready" in line for line in said)


def test_a_table_is_read_in_few_requests(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({name: [os.urandom(10_000).hex() for _ in range(60)] for name in ("text", "other")})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=30, compression=None)
    bucket.put("in/a.parquet", sink.getvalue().to_pybytes())
    (file,) = listed(f"{bucket.url}/in")
    ranges, fetch = list[tuple[int, int]](), ranged_file_module._fetched
    monkeypatch.setattr(ranged_file_module, "_fetched", lambda url, options, start, end: ranges.append((start, end)) or fetch(
        url, options, start, end))
    with as_listed(file), parquet_file(file) as parquet:
        assert parquet.read_row_group(1, columns=["text"]).num_rows == 30
    assert len(ranges) == 2
    assert sum(end - start for start, end in ranges) < file.bytes * 2 / 3


def test_exclude_is_for_what_python_reads():
    source = InputSource(path="s3://bucket/in", exclude=("drafts",))
    assert make_recipe(source.model_dump()).prepare.contradictions() == []
    (fault,) = make_recipe({"path": "s3a://bucket/in", "exclude": ["drafts"]}).prepare.contradictions()
    assert fault.problem == "leaves files out of local folders, not of a URL that Spark reads"
