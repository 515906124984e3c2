"""The whole stage on a real local Spark session: what goes in comes out, counted, once."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.errors import DataError, StorageError
from pipelines.lake.manifest import Manifest, row_group_runs
from pipelines.lake.paths import Lake
from pipelines.lake.schemas import TABLE_DDL
from pipelines.lake.store import file_sha256
from pipelines.prepare.prepare import plan_prepare, prepare
from pipelines.prepare.remote import summarize_remote
from pipelines.prepare.text.input_records import BYTE_ORDER_MARK
from pipelines.prepare.text.sources import remote_marks
from pipelines.prepare.text.tokenizer import train_bpe
from tests.prepare.conftest import documents, make_recipe, make_text, remote_url, streams, write_texts

pytestmark = pytest.mark.processes

Report = Callable[[str], None]
TEXTS = [make_text(seed) for seed in range(30)]


def rejected(lake: Lake) -> Counter[str]:
    return Counter(pd.read_parquet(lake.root / lake.table("rejected"))["reason"])


def check_counts(lake: Lake, manifest: Manifest) -> None:
    """Everything adds up: to the input, to the table, to the shards."""
    counts = manifest.counts
    by_reason = {key.removeprefix("rejected_"): count for key, count in counts.items() if key.startswith("rejected_")}
    table = pd.read_parquet(lake.root / lake.table("rejected") / f"{manifest.name}-{manifest.version}.parquet")
    assert counts["input_records"] == counts["documents"] + sum(by_reason.values())
    assert {key: count for key, count in by_reason.items() if count} == dict(Counter(table["reason"]))
    assert "duplicates" not in counts  # they are in rejected_duplicate, once
    for split in manifest.splits:
        assert manifest.units[split] == sum(len(stream) - 1 for stream in streams(lake, manifest, split))
        assert counts[f"{split}_documents"] == len(documents(lake, manifest, split))
        for shard in manifest.shards(split):
            path = lake.root / lake.dataset(manifest.name, manifest.version) / shard.path
            metadata = pq.read_metadata(path)
            groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
            assert (shard.row_groups, shard.bytes) == (row_group_runs(groups), path.stat().st_size)
            assert shard.sha256 == file_sha256(path)


@pytest.mark.parametrize("tokenizer", [
    {"kind": "bytes"}, {"kind": "characters"}, {"kind": "bpe", "vocabulary_size": 300},
    {"kind": "bpe", "path": "given"}],
    ids=["bytes", "characters", "bpe", "given"])
def test_every_document_comes_back_with_every_kind_of_tokenizer(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, tokenizer: dict[str, Any]) -> None:
    texts = write_texts(tmp_path / "ein Ordner" / "tëxt [1]*", 30)
    if "path" in tokenizer:
        tokenizer = {**tokenizer, "path": str(tmp_path / "given.json")}
        train_bpe(texts, 280).save(tokenizer["path"])
    manifest = prepare(spark, make_recipe(tmp_path / "ein Ordner", tokenizer=tokenizer), lake, silent)
    assert sorted(documents(lake, manifest, "train") + documents(lake, manifest, "validation")) == sorted(texts)
    check_counts(lake, manifest)
    assert manifest == Manifest.load(lake.store.below(lake.dataset("test", manifest.version)))
    published = lake.root / lake.dataset("test", manifest.version)
    assert manifest.task.facts["tokenizer_sha256"] == file_sha256(published / "tokenizer.json")
    text_bytes = {split: sum(len(text.encode()) for text in documents(lake, manifest, split)) for split in manifest.splits}
    assert manifest.task.facts["token_bytes"] == {s: text_bytes[s] / manifest.units[s] for s in manifest.splits}
    guessing, frequencies, bigram = manifest.baselines
    assert np.isclose(guessing.loss, np.log(manifest.task.sizes["vocabulary_size"]))
    assert bigram.loss < frequencies.loss < guessing.loss
    train = f"{manifest.units['train']:,}"
    assert f"counted on {train} of {train} train tokens" in bigram.note  # few enough to count them all
    assert not list((lake.root / lake.datasets("test")).glob(".*"))
    assert {path.suffix for path in published.iterdir()} == {".parquet", ".json"}


def write_inputs(folder: Path) -> dict[str, dict[str, Any]]:
    """The same texts in each format, each with records that must be refused."""
    folder.mkdir()
    raws = [text.encode() for text in TEXTS]
    (folder / "texts").mkdir()
    refused = [("again", raws[3]), ("bad", b"\xff"), ("empty", b""), ("long", b"x" * 2000)]
    for name, raw in [*enumerate(raws), *refused]:
        (folder / "texts" / f"{name}.txt").write_bytes(raw)
    (folder / "cut.txt").write_bytes(b"\n--\n".join([*raws, raws[3], b"\xff", b"", b"x" * 2000, b""]))
    lines = [json.dumps({"body": text}).encode() for text in [*TEXTS, TEXTS[3], "", "x" * 2000]]
    lines += [b'{"body": "\xff"}', b'{"body": 1}', b"{", b'{"b": ""}', b""]
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    table = pa.table({"body": pa.array([*raws, raws[3], b"\xff", b"", b"x" * 2000], pa.binary()),
                      "other": list(range(34))})
    pq.write_table(table, folder / "table.parquet", row_group_size=7)
    return {"text": {"path": str(folder / "texts")}, "cut": {"path": str(folder / "cut.txt"), "delimiter": "\n--\n"},
            "jsonl": {"path": str(folder / "rows.jsonl"), "format": "jsonl", "column": "body"},
            "parquet": {"path": str(folder / "table.parquet"), "format": "parquet", "column": "body"}}


REFUSED = {"duplicate": 1, "undecodable": 1, "empty": 1, "oversized": 1}


@pytest.mark.parametrize("kind", ["text", "cut", "jsonl", "parquet"])
def test_each_format_gives_the_same_documents_and_counts_what_it_refuses(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, kind: str) -> None:
    source = write_inputs(tmp_path / "in")[kind]
    manifest = prepare(spark, make_recipe(source, max_document_bytes=1000), lake, silent)
    assert sorted(documents(lake, manifest, "train") + documents(lake, manifest, "validation")) == sorted(TEXTS)
    assert rejected(lake) == {**REFUSED, "malformed": 3} if kind == "jsonl" else rejected(lake) == REFUSED
    check_counts(lake, manifest)


@pytest.mark.parametrize("kind", ["text", "cut", "jsonl", "parquet"])
def test_each_format_is_read_from_a_url(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, kind: str) -> None:
    source = write_inputs(tmp_path / "in")[kind]
    for name in ("_hidden", ".hidden", "_folder/x"):  # as from a local folder
        (tmp_path / "in" / "texts" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / "texts" / name).write_text("not to be read")
    source = {**source, "path": remote_url(source["path"])}
    tokenizer = {"kind": "bpe", "vocabulary_size": 300, "sample_bytes": 500}
    recipe = make_recipe(source, max_document_bytes=1000, tokenizer=tokenizer)
    manifest = prepare(spark, recipe, lake, silent)
    assert sorted(documents(lake, manifest, "train") + documents(lake, manifest, "validation")) == sorted(TEXTS)
    assert rejected(lake) == {**REFUSED, "malformed": 3} if kind == "jsonl" else rejected(lake) == REFUSED
    check_counts(lake, manifest)
    said: list[str] = []
    assert prepare(spark, recipe, lake, said.append) == manifest
    assert "nothing to do" in said[0]


def test_several_inputs_are_one_dataset_and_duplicates_across_them_are_dropped(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    inputs = write_inputs(tmp_path / "in")
    inputs["cut"]["path"] = remote_url(inputs["cut"]["path"])
    manifest = prepare(spark, make_recipe(*inputs.values(), max_document_bytes=1000), lake, silent)
    assert sorted(documents(lake, manifest, "train") + documents(lake, manifest, "validation")) == sorted(TEXTS)
    assert manifest.counts["rejected_duplicate"] == 4 * 31 - 30
    check_counts(lake, manifest)


@pytest.mark.parametrize("kind", ["hash", "position"])
def test_a_third_split_holds_what_neither_train_nor_validation_does(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, kind: str) -> None:
    texts = write_texts(tmp_path / "in", 60)
    split = {"kind": kind, "validation_fraction": 0.2, "test_fraction": 0.3}
    manifest = prepare(spark, make_recipe(tmp_path / "in", split=split), lake, silent)
    found = {name: documents(lake, manifest, name) for name in ("train", "validation", "test")}
    if kind == "hash":
        assert sorted(text for part in found.values() for text in part) == sorted(texts)
        without = prepare(spark, make_recipe(tmp_path / "in", split={"validation_fraction": 0.2}, name="without"), lake, silent)
        assert sorted(documents(lake, without, "validation")) == sorted(found["validation"])  # test is taken from train
    else:
        starts = {text[: text.index(":")]: text for text in texts}
        for first in found["train"]:
            text = starts[first[: first.index(":")]]
            (second,) = [part for part in found["validation"] if text.startswith(first + part)]
            assert text in {first + second + part for part in found["test"]}
    check_counts(lake, manifest)
    row = spark.read.parquet(str(lake.root / lake.table("datasets") / f"test-{manifest.version}.parquet")).first()
    assert row and (row.test_rows, row.test_units) == (manifest.rows("test"), manifest.units["test"])


def test_many_rejected_records_are_told_with_the_commonest_reason_and_an_example(
        spark: SparkSession, lake: Lake, tmp_path: Path) -> None:
    write_texts(tmp_path / "in", 20)
    copy, odd = tmp_path / "in" / "copy.txt", tmp_path / "in" / "zz\nodd.txt"
    copy.write_bytes((tmp_path / "in" / "0003.txt").read_bytes())
    said: list[str] = []
    prepare(spark, make_recipe(tmp_path / "in"), lake, said.append)
    assert not [line for line in said if "were rejected" in line]  # 1 of 21 is less than 5 %
    (row,) = pd.read_parquet(lake.root / lake.table("rejected")).to_dict("records")
    assert row["source"] == str(copy) and row["detail"] == f"same content as {tmp_path / 'in' / '0003.txt'} at 0"
    odd.write_bytes(b"\xff")
    (tmp_path / "in" / "zz.txt").write_bytes(b"\xfe")
    prepare(spark, make_recipe(tmp_path / "in"), lake, said.append)
    (line,) = [line for line in said if "were rejected" in line]
    assert line.startswith("prepare: 3 of 23 records (13%) were rejected, 2 of them as undecodable, for example '")
    assert "zz" in line and "at 0 ('byte 0: invalid start byte')" in line and "\n" not in line
    assert lake.store.place(lake.table("rejected")) in line


def test_duplicates_stay_where_the_recipe_says_so(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    write_texts(tmp_path / "in", 20)
    (tmp_path / "in" / "copy.txt").write_bytes((tmp_path / "in" / "0003.txt").read_bytes())
    assert prepare(spark, make_recipe(tmp_path / "in", deduplicate=False), lake, silent).counts["documents"] == 21


def test_adding_documents_moves_none_between_splits(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    write_texts(tmp_path / "in", 20)
    before = prepare(spark, make_recipe(tmp_path / "in"), lake, silent)
    write_texts(tmp_path / "in", 40)
    after = prepare(spark, make_recipe(tmp_path / "in"), lake, silent)
    assert before.version != after.version
    assert (lake.root / lake.dataset("test", before.version)).exists()
    for split in ("train", "validation"):
        assert set(documents(lake, before, split)) < set(documents(lake, after, split))


def test_one_document_is_split_by_position(spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    text = "".join(make_text(seed) for seed in range(50))
    (tmp_path / "one.txt").write_bytes(text.encode())
    recipe = make_recipe(tmp_path / "one.txt", split={"kind": "position", "validation_fraction": 0.1},
                         tokenizer={"kind": "characters"})
    manifest = prepare(spark, recipe, lake, silent)
    (train,), (validation,) = documents(lake, manifest, "train"), documents(lake, manifest, "validation")
    assert train + validation == text and len(train) == int(len(text) * 0.9)
    assert manifest.task.sizes["vocabulary_size"] == len(set(text)) + 1
    check_counts(lake, manifest)


def test_a_huge_file_is_cut_in_parallel_into_even_shards(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [make_text(seed, words=20) for seed in range(3000)]
    (tmp_path / "huge.txt").write_bytes("\n\n".join(texts).encode())
    monkeypatch.setattr("pipelines.prepare.text.local_documents.PIECE_BYTES", 10_000)
    monkeypatch.setattr("pipelines.prepare.text.local_documents.MIN_TASK_BYTES", 10_000)
    source = {"path": str(tmp_path / "huge.txt"), "delimiter": "\n\n"}
    manifest = prepare(spark, make_recipe(source, shard_text_bytes=60_000), lake, silent)
    rows = [shard.rows for shard in manifest.shards("train")]
    assert len(rows) >= 5 and max(rows) < 1.3 * min(rows)
    assert all({run.rows for run in shard.row_groups[:-1]} <= {8} for shard in manifest.shards("train"))
    expected = {piece for piece in "\n\n".join(texts).split("\n\n") if piece}
    assert set(documents(lake, manifest, "train")) | set(documents(lake, manifest, "validation")) == expected


def test_the_same_inputs_and_recipe_make_no_second_copy(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    write_texts(tmp_path / "in", 20)
    recipe = make_recipe(tmp_path / "in")
    manifest = prepare(spark, recipe, lake, silent)
    assert plan_prepare(recipe, lake).exists
    before = {path: path.stat().st_mtime_ns for path in lake.root.rglob("*")}
    said: list[str] = []
    assert prepare(spark, recipe, lake, said.append) == manifest
    assert {path: path.stat().st_mtime_ns for path in lake.root.rglob("*")} == before
    assert manifest.version in said[0] and "nothing to do" in said[0]


def test_the_files_are_the_same_bytes_whatever_the_cluster(
        spark: SparkSession, tmp_path: Path, silent: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "in", 60)
    recipe = make_recipe(tmp_path / "in", tokenizer={"kind": "bpe", "vocabulary_size": 300}, shard_text_bytes=8000)
    first = prepare(spark, recipe, Lake.at(tmp_path / "a"), silent)
    monkeypatch.setattr("pipelines.prepare.text.local_documents.MIN_TASK_BYTES", 1000)  # read by other tasks, in another order
    spark.conf.set("spark.sql.shuffle.partitions", 5)
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    try:
        second = prepare(spark, recipe, Lake.at(tmp_path / "b"), silent)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", 2)
        spark.conf.set("spark.sql.adaptive.enabled", "true")
    assert len(first.shards("train")) > 1 and first == second
    assert spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch") == "10000"


def test_any_spark_and_pandas_read_shards_and_tables(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    write_texts(tmp_path / "in", 20)
    (tmp_path / "in" / "bad.txt").write_bytes(b"\xff")
    manifest = prepare(spark, make_recipe(tmp_path / "in"), lake, silent)
    prepare(spark, make_recipe(tmp_path / "in", sequence_length=20), lake, silent)
    shards = f"{lake.store.place(lake.dataset('test', manifest.version))}/train-*.parquet"
    assert spark.read.parquet(shards).count() == manifest.rows("train")
    assert len(pd.read_parquet(lake.root / lake.dataset("test", manifest.version) / "train-00000.parquet")) > 0
    for table, rows in (("datasets", 2), ("rejected", 2)):
        found = spark.read.parquet(lake.store.place(lake.table(table)))
        expected = spark.createDataFrame([], TABLE_DDL[table])
        assert (found.dtypes, found.count()) == (expected.dtypes, rows)
    row = spark.read.parquet(lake.store.place(lake.table("datasets"))).where(f"dataset_version = '{manifest.version}'").first()
    assert row and row.train_rows == manifest.rows("train") and row.rejected_records == 1


def test_without_documents_the_reasons_are_named_and_kept(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.txt").write_bytes(b"\xff")
    (tmp_path / "in" / "empty.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"of 2 records all were rejected \(1 empty, 1 undecodable\)"):
        prepare(spark, make_recipe(tmp_path / "in"), lake, silent)
    assert rejected(lake) == {"undecodable": 1, "empty": 1}
    assert not list((lake.root / lake.datasets("test")).iterdir())


def test_an_empty_split_says_what_to_change(spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    write_texts(tmp_path / "in", 1)
    with pytest.raises(DataError, match=r"split is empty: .*prepare\.split\.kind: position"):
        prepare(spark, make_recipe(tmp_path / "in"), lake, silent)


def corrupt_parquet(path: Path, footer: bool) -> dict[str, Any]:
    pq.write_table(pa.table({"text": TEXTS}), path, use_dictionary=False)
    raw = bytearray(path.read_bytes())
    if footer:
        del raw[len(raw) // 2:]
    else:
        raw[4:400] = bytes(396)
    path.write_bytes(raw)
    return {"path": str(path), "format": "parquet"}


@pytest.mark.parametrize("footer", [True, False])
@pytest.mark.parametrize("url", [False, True])
def test_a_corrupt_parquet_file_is_named(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, footer: bool, url: bool) -> None:
    source = corrupt_parquet(tmp_path / "bad.parquet", footer)
    if url:
        source["path"] = remote_url(source["path"])
    with pytest.raises(DataError, match=r"prepare\.inputs.*bad\.parquet") as error:
        prepare(spark, make_recipe(source), lake, silent)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", [False, True])
@pytest.mark.parametrize("table", [{"other": ["x"]}, {"text": [1]}])
def test_schema_drift_names_the_column(spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report,
                                       table: dict[str, list[Any]], url: bool) -> None:
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    path = remote_url(tmp_path / "x.parquet") if url else str(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"prepare\.inputs\.0\.column: .*x\.parquet"):
        prepare(spark, make_recipe({"path": path, "format": "parquet"}), lake, silent)


def test_compressed_files_are_read_from_paths_and_urls_alike(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    inputs = write_inputs(tmp_path / "in")
    for name, compress in (("rows.jsonl", gzip.compress), ("cut.txt", bz2.compress)):
        (tmp_path / "in" / name).write_bytes(compress((tmp_path / "in" / name).read_bytes()))
    for path in (tmp_path / "in" / "texts").iterdir():
        path.write_bytes(pa.Codec("zstd").compress(path.read_bytes(), asbytes=True))
    sources = [inputs[kind] for kind in ("text", "cut", "jsonl")]
    local = prepare(spark, make_recipe(*sources, max_document_bytes=1000), lake, silent)
    remote = prepare(spark, make_recipe(*({**source, "path": remote_url(source["path"])} for source in sources),
                                        max_document_bytes=1000), lake, silent)
    assert sorted(documents(lake, local, "train") + documents(lake, local, "validation")) == sorted(TEXTS)
    assert (remote.splits, remote.counts) == (local.splits, local.counts)
    assert local.counts["rejected_duplicate"] == 3 * 31 - 30


@pytest.mark.parametrize(("name", "delimiter", "same"), [("a.txt", None, True), ("a.gz", "\n", True), ("a.gz", None, False)])
def test_only_what_is_read_in_another_way_than_before_from_a_url_makes_another_version(
        spark: SparkSession, tmp_path: Path, name: str, delimiter: str | None, same: bool) -> None:
    (tmp_path / name).write_text("x")
    url = remote_url(tmp_path / name)
    prepare = make_recipe({"path": url, "delimiter": delimiter}).prepare
    identity = summarize_remote(spark, prepare.inputs, remote_marks(prepare)).identity
    assert (hashlib.sha256(url.encode()).hexdigest() in identity) is same  # the names as the first release hashed them


@pytest.fixture
def long_files(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files at URLs are long from 1,000 bytes on, and Spark cuts them into parts of 5,000."""
    monkeypatch.setattr("pipelines.prepare.text.remote_documents.WHOLE_BYTES", 1000)
    spark.conf.set("spark.sql.files.maxPartitionBytes", 5000)
    yield
    spark.conf.unset("spark.sql.files.maxPartitionBytes")


@pytest.mark.usefixtures("long_files")
def test_long_files_at_a_url_are_read_in_parts(spark: SparkSession, lake: Lake, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "in")
    cut = tmp_path / "in" / "cut.txt"
    cut.write_bytes(BYTE_ORDER_MARK + cut.read_bytes())
    sources = [{**inputs[kind], "path": remote_url(inputs[kind]["path"])} for kind in ("cut", "jsonl", "jsonl")]
    told: list[str] = []
    manifest = prepare(spark, make_recipe(*sources, max_document_bytes=2500), lake, told.append)
    assert manifest.counts["documents"] == 31  # one is 2,000 times x
    assert not any("copied" in line for line in told)


@pytest.mark.usefixtures("long_files")
@pytest.mark.parametrize("in_parts", [1, 10])
def test_a_line_that_is_too_long_is_counted_in_a_long_file_at_a_url_as_in_a_local_one(
        spark: SparkSession, lake: Lake, tmp_path: Path, in_parts: int) -> None:
    """Spark's source drops such a line, and takes the last part of one that spans its parts for a line."""
    rows = tmp_path / "a row's file.jsonl"
    long_line = b'{"body": "' + b"x" * (5000 * in_parts) + b'"}'
    rows.write_bytes(b"\n".join([b'{"body": "first"}', *[json.dumps({"body": make_text(seed)}).encode() for seed in range(30)],
                                 long_line, long_line, b'{"body": "last"}', b""]))
    told: list[str] = []

    def prepared(path: str, at: Lake) -> Manifest:
        recipe = make_recipe({"path": path, "format": "jsonl", "column": "body"}, max_document_bytes=600)
        return prepare(spark, recipe, at, told.append)

    local = prepared(str(rows), Lake.at(tmp_path / "other lake"))
    assert not any("copied" in line for line in told)
    remote = prepared(remote_url(rows), lake)
    assert [line for line in told if "copied and read again" in line and "viewfs://tests/" in line]
    assert local.counts["rejected_oversized"] == 2 and local.counts["documents"] == 32
    assert (remote.counts, remote.splits) == (local.counts, local.splits)
    rejected = pq.read_table(lake.root / lake.table("rejected")).to_pylist()
    assert {row["source"][:9] for row in rejected} == {"viewfs://"}
    assert sorted(path.name for path in (lake.root / lake.dataset("test", remote.version)).iterdir()) == sorted(
        path.name for path in (tmp_path / "other lake" / lake.dataset("test", local.version)).iterdir())


@pytest.mark.usefixtures("long_files")
def test_a_document_that_is_too_long_for_sparks_reader_only_is_a_document(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.prepare.text.remote_documents.LINE_BYTES", 2000)
    (tmp_path / "rows").write_text("\n".join(["first", "x" * 2500, "last", "y" * 3500]))
    counts = prepare(spark, make_recipe({"path": remote_url(tmp_path / "rows"), "delimiter": "\n"}, max_document_bytes=3000),
                     lake, silent).counts
    assert (counts["documents"], counts["rejected_oversized"], counts["input_records"]) == (3, 1, 4)


@pytest.mark.usefixtures("long_files")
@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl"])
def test_a_long_compressed_file_at_a_url_is_read_as_a_local_one(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, name: str) -> None:
    lines = [json.dumps({"body": make_text(seed)}) for seed in range(30)] + [json.dumps({"body": "x" * 90_000})]
    (tmp_path / name).write_bytes(gzip.compress("\n".join(lines).encode()))
    assert (tmp_path / name).stat().st_size > 1000
    source = {"path": remote_url(tmp_path / name), "format": "jsonl", "column": "body"}
    counts = prepare(spark, make_recipe(source, max_document_bytes=5000), lake, silent).counts
    assert (counts["documents"], counts["rejected_oversized"], counts["input_records"]) == (30, 1, 31)


@pytest.mark.usefixtures("long_files")
def test_a_copy_that_has_no_room_is_a_storage_error_before_it_is_made(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.gz").write_bytes(np.random.default_rng(1).bytes(2000))
    monkeypatch.setattr("pipelines.prepare.text.local_copies.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(StorageError, match=r"0 bytes free, too few for a copy of viewfs://tests/.*rows\.gz"):
        prepare(spark, make_recipe({"path": remote_url(tmp_path / "rows.gz"), "delimiter": "\n"}), lake, silent)
    assert not list((lake.root / lake.datasets("test")).iterdir())


@pytest.mark.parametrize("kind", ["text", "parquet"])
def test_input_at_a_url_that_changes_while_prepare_runs_is_not_published(
        spark: SparkSession, lake: Lake, tmp_path: Path, kind: str) -> None:
    source = write_inputs(tmp_path / "in")[kind]
    changed = next(Path(source["path"]).iterdir()) if kind == "text" else Path(source["path"])
    source["path"] = remote_url(source["path"])

    def meanwhile(message: str) -> None:
        if "tokenizer ready" in message:
            os.utime(changed, (1, 1))

    with pytest.raises(DataError, match="input changed while it was read") as error:
        prepare(spark, make_recipe(source), lake, meanwhile)
    assert "viewfs" in str(error.value)
    assert not list((lake.root / lake.datasets("test")).iterdir()) and not (lake.root / lake.table("rejected")).exists()


def test_a_missing_url_is_named_without_a_java_trace(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    with pytest.raises(DataError, match=r"prepare\.inputs\.0\.path: .*nothing") as error:
        prepare(spark, make_recipe(remote_url(tmp_path / "nothing")), lake, silent)
    assert "\n" not in str(error.value)


def test_a_lake_that_cannot_be_written_is_a_storage_error(spark: SparkSession, tmp_path: Path, silent: Report) -> None:
    write_texts(tmp_path / "in", 20)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="storage.root"):
        prepare(spark, make_recipe(tmp_path / "in"), Lake.at(tmp_path / "file" / "lake"), silent)


def test_a_disk_that_fills_up_inside_a_task_is_a_storage_error(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "in", 20)
    monkeypatch.setattr("pipelines.prepare.text.language_dataset.pack_partition", _pack_onto_a_full_disk)
    with pytest.raises(StorageError, match="No space left on device"):
        prepare(spark, make_recipe(tmp_path / "in"), lake, silent)
    assert not list((lake.root / lake.datasets("test")).iterdir())


def _pack_onto_a_full_disk(batches: Any, settings: Any) -> Any:
    """pack_partition in a worker whose shards lie on a full disk."""
    from pipelines.prepare.text import partition

    synced_file = partition.synced_file
    partition.synced_file = lambda path: open("/dev/full", "wb")  # noqa: SIM115
    try:
        yield from partition.pack_partition(batches, settings)
    finally:
        partition.synced_file = synced_file
