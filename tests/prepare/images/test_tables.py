"""Labels by tables, images in tables, and datasets of petastorm's: the same images, wherever they are."""

from __future__ import annotations

import csv
import io
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.types import IntegerType, StringType

from pipelines.errors import DataError
from pipelines.lake.paths import Lake
from pipelines.prepare.images.label_tables import label_text
from pipelines.prepare.inputs import recipe_hash
from pipelines.prepare.prepare import plan_prepare, prepare
from tests.prepare.conftest import remote_url
from tests.prepare.images.conftest import (
    channels_first,
    check_facts,
    encoded,
    every_row,
    image_recipe,
    picture,
    rejected,
    rejected_rows,
    rows,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from petastorm.codecs import CompressedImageCodec, CompressedNdarrayCodec, NdarrayCodec, ScalarCodec
    from petastorm.etl.dataset_metadata import materialize_dataset
    from petastorm.unischema import Unischema, UnischemaField, dict_to_spark_row

pytestmark = pytest.mark.processes

Report = Callable[[str], None]
NAMES = ["b", "a", "c"]


@pytest.fixture
def silent() -> Report:
    return lambda message: None


def pictures(folder: Path, count: int = 24) -> dict[str, tuple[bytes, str]]:
    """Files in a folder and one below it; by name, the pixels and the class."""
    found = {}
    for number in range(count):
        name = f"{'deep/' if number % 2 else ''}{number:03d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        values = picture(number, 5, 4, 3)
        (folder / name).write_bytes(encoded(values))
        found[name] = channels_first(values), NAMES[number % 3]
    return found


def write_labels(path: Path, form: str, labels: dict[str, Any], **columns: dict[str, Any]) -> None:
    records = [{"file": name, "kind": label, **{key: values[name] for key, values in columns.items()}}
               for name, label in labels.items()]
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, ["file", "kind", *columns])
        writer.writeheader()
        writer.writerows(records)
        path.write_text(text.getvalue(), encoding="utf-8-sig")
    elif form == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    else:
        pq.write_table(pa.Table.from_pylist(records), path)


@pytest.mark.parametrize("url", [False, True])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_labels_come_from_a_table_and_what_has_no_partner_is_counted(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, form: str, url: bool) -> None:
    found = pictures(tmp_path / "in")
    labels = {name: label for name, (_, label) in found.items()}
    splits = {name: ["train", "Valid", "test"][number // 3 % 3] for number, name in enumerate(labels)}
    del labels["000.png"]
    for name in list(labels)[:4]:
        labels[name.removesuffix(".png")] = labels.pop(name)  # the name without its ending
    labels["gone.png"] = "a"
    splits |= {name.removesuffix(".png"): split for name, split in splits.items()} | {"gone.png": "train"}
    write_labels(tmp_path / f"labels.{form}", form, labels, split=splits)
    place: Callable[[Path], str] = remote_url if url else str
    source = {"path": place(tmp_path / "in"),
              "labels": {"path": place(tmp_path / f"labels.{form}"), "image": "file", "label": "kind"}}
    recipe = image_recipe(source, split={"kind": "column"})
    manifest = prepare(spark, recipe, lake, silent)
    assert sorted(every_row(lake, manifest)) == sorted(row for name, row in found.items() if name != "000.png")
    assert rejected(lake, manifest) == {"unlabelled": 1, "without_image": 1}
    assert manifest.task.facts["classes"] == ["a", "b", "c"]
    assert sorted(rows(lake, manifest, "test")) == sorted(row for name, row in found.items() if splits[name] == "test")
    missing = rejected_rows(lake, manifest).set_index("reason").loc["without_image"]
    assert missing["source"].endswith(f"labels.{form}") and "gone.png" in missing["detail"]
    check_facts(lake, manifest)
    assert prepare(spark, recipe, lake, silent) == manifest
    write_labels(tmp_path / f"labels.{form}", form, labels | {"other.png": "a"}, split=splits | {"other.png": "train"})
    again = prepare(spark, recipe, lake, silent)  # the table is part of the input
    assert again.version != manifest.version and again.counts["rejected_without_image"] == 2


def test_where_a_table_of_labels_lies_is_no_part_of_the_version(lake: Lake, tmp_path: Path) -> None:
    versions = set()
    for folder in ("one", "two"):
        pictures(tmp_path / folder / "in")
        write_labels(tmp_path / folder / f"{folder}.csv", "csv", {"000.png": "a"})
        labels = {"path": str(tmp_path / folder / f"{folder}.csv")}
        recipe = image_recipe({"path": str(tmp_path / folder / "in"), "labels": labels})
        versions.add(recipe_hash(recipe.prepare))
        assert plan_prepare(recipe, lake).num_files == 25
    assert len(versions) == 1


@pytest.mark.parametrize(("name", "content", "message"), [
    ("labels.csv", b"image,kind\n000,a\n", "has no column 'label'; it has image, kind"),
    ("labels.csv", b"image,label\n000,a\n000,b\n", "says 'b' of '000' in row 1, and 'a' in row 0"),
    ("labels.csv", b"image,label\n\xff,a\n", "is not text: byte .* is not UTF-8"),
    ("labels.csv", b"image,label\n000,a\n ,b\n", "names no image in row 1; correct it"),
    ("labels.jsonl", b'{"image": null, "label": "a"}\n', "names no image in row 0"),
    ("labels.jsonl", b'{"image": "000", "label": "a"}\n{\n', "is not JSON in line 2"),
    ("labels.jsonl", b"[1]\n", "holds a JSON list in line 1, not an object"),
    ("labels.parquet", b"nothing", "cannot be read"),
])
def test_a_damaged_table_of_labels_is_told(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, name: str, content: bytes, message: str) -> None:
    pictures(tmp_path / "in")
    (tmp_path / name).write_bytes(content)
    recipe = image_recipe({"path": str(tmp_path / "in"), "labels": {"path": str(tmp_path / name)}})
    with pytest.raises(DataError, match=message) as caught:
        prepare(spark, recipe, lake, silent)
    assert caught.value.place == "prepare.inputs.0.labels.path"


@pytest.mark.parametrize(("value", "text"), [
    (" cat ", "cat"), (b" cat ", "cat"), (7, "7"), (7.0, "7"), (True, "true"), ("", None), (" ", None), (b"", None), (b" ", None),
    (None, None), (0.5, None)])
def test_a_label_of_which_nothing_is_left_is_none(value: Any, text: str | None) -> None:
    assert label_text(value) == text


def _images(form: str, values: list[np.ndarray]) -> pa.Array:
    """A column of images, as several writers make it."""
    if form == "spark":
        return pa.array([{"origin": "x", "height": 5, "width": 4, "nChannels": 3, "mode": 16, "data": each[:, :, ::-1].tobytes()}
                         for each in values])
    files = [encoded(each) for each in values]
    return pa.array([{"bytes": file, "path": "x"} for file in files] if form == "hugging-face" else files)


@pytest.mark.parametrize("url", [False, True])
@pytest.mark.parametrize("form", ["bytes", "spark", "hugging-face"])
def test_images_and_labels_are_columns_of_a_table(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, form: str, url: bool) -> None:
    values = [picture(number, 5, 4, 3) for number in range(30)]
    labels = [2 * (number % 2) + 8 for number in range(30)]
    column = pa.concat_arrays([_images(form, values), pa.nulls(1, _images(form, values).type)])
    table = pa.table({"id": range(31), "content": column, "label": pa.array([*labels, 8], pa.int64()),
                      "split": ["train"] * 20 + ["test"] * 5 + ["validation"] * 6})
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "part-0.parquet", row_group_size=7)
    recipe = image_recipe(remote_url(tmp_path / "in") if url else tmp_path / "in", split={"kind": "column"})
    manifest = prepare(spark, recipe, lake, silent)
    assert manifest.task.facts["classes"] == ["8", "10"]
    assert {split: manifest.rows(split) for split in manifest.splits} == {"train": 20, "validation": 5, "test": 5}
    assert sorted(every_row(lake, manifest)) == sorted((channels_first(each), str(label))
                                                       for each, label in zip(values, labels, strict=True))
    assert rejected(lake, manifest) == {"empty": 1}
    check_facts(lake, manifest)


@pytest.mark.parametrize(("settings", "message"), [
    ({"label": "kind"}, "has no column 'kind'; it has first, second, label"),
    ({}, "has 2 columns of bytes that may be the images .first, second.*; name the column of images"),
    ({"image": "third"}, "has no column 'third'"),
])
@pytest.mark.parametrize("url", [False, True])
def test_a_column_that_is_not_there_is_told(spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report,
                                            settings: dict[str, str], message: str, url: bool) -> None:
    pq.write_table(pa.table({"first": [b"1"], "second": [b"2"], "label": [1]}), tmp_path / "x.parquet")
    path = tmp_path / "x.parquet"
    with pytest.raises(DataError, match=message):
        prepare(spark, image_recipe({"path": remote_url(path) if url else str(path), **settings}), lake, silent)


CODECS = {"npy": NdarrayCodec, "npz": CompressedNdarrayCodec, "png": lambda: CompressedImageCodec("png"),
          "jpeg": lambda: CompressedImageCodec("jpeg", 95)}


def petastorm_dataset(spark: SparkSession, folder: Path, codec: Any, values: list[np.ndarray], labels: list[Any]) -> None:
    """Made as petastorm's users make one."""
    kind, spark_kind = (np.str_, StringType()) if isinstance(labels[0], str) else (np.int32, IntegerType())
    schema = Unischema("Pictures", [UnischemaField("idx", np.int32, (), ScalarCodec(IntegerType()), False),
                                    UnischemaField("picture", values[0].dtype.type, values[0].shape, codec, False),
                                    UnischemaField("digit", kind, (), ScalarCodec(spark_kind), False)])
    url = f"file://{folder}"
    with materialize_dataset(spark, url, schema, row_group_size_mb=1):
        records = [dict_to_spark_row(schema, {"idx": number, "picture": value, "digit": label})
                   for number, (value, label) in enumerate(zip(values, labels, strict=True))]
        spark.createDataFrame(records, schema.as_spark_schema()).coalesce(2).write.parquet(url)


@pytest.mark.parametrize("url", [False, True])
@pytest.mark.parametrize("codec", list(CODECS))
def test_a_dataset_of_petastorm_is_read_whatever_its_codec(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, codec: str, url: bool) -> None:
    shape = {"npy": (6, 5), "npz": (3, 6, 5)}.get(codec, (6, 5, 3))
    values = [picture(number, *shape) for number in range(30)]
    labels: list[Any] = [number % 3 for number in range(30)] if codec != "png" else [NAMES[number % 3] for number in range(30)]
    petastorm_dataset(spark, tmp_path / "pictures", CODECS[codec](), values, labels)
    place = remote_url(tmp_path / "pictures") if url else str(tmp_path / "pictures")
    manifest = prepare(spark, image_recipe({"path": place, "label": "digit"}), lake, silent)
    found = every_row(lake, manifest)
    assert len(found) == 30 and manifest.task.sizes["channels"] == (1 if codec == "npy" else 3)
    if codec != "jpeg":
        expected = [value.tobytes() if value.shape[0] == 3 or value.ndim == 2 else channels_first(value) for value in values]
        assert sorted(found) == sorted(zip(expected, map(str, labels), strict=True))
    check_facts(lake, manifest)


class Malicious:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("url", [False, True])
def test_what_lies_in_common_metadata_is_never_unpickled(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, url: bool) -> None:
    folder, mark = tmp_path / "pictures", tmp_path / "mark"
    petastorm_dataset(spark, folder, NdarrayCodec(), [picture(number, 6, 5) for number in range(30)], [0, 1] * 15)
    poison = pickle.dumps(Malicious(mark))
    schema = pq.read_schema(folder / "_common_metadata").with_metadata({b"dataset-toolkit.unischema.v1": poison})
    pq.write_metadata(schema, folder / "_common_metadata")
    pickle.loads(poison)
    assert mark.exists()  # it would work
    mark.unlink()
    prepare(spark, image_recipe({"path": remote_url(folder) if url else str(folder), "label": "digit"}), lake, silent)
    assert not mark.exists()




@pytest.mark.parametrize("url", [False, True])
@pytest.mark.parametrize(("value", "message"), [
    (b"\x12\x34\x56 my own codec", "column 'picture' bytes that begin with 12 34 56 20 6d 79 20 6f; values of npy, npz"),
    ("objects", "an array of objects"),
    (np.zeros((6, 5), np.float32), "an array of float32; uint8 and uint16 are read"),
    (np.zeros((2, 6, 5, 3), np.uint8), r"an array of \(2, 6, 5, 3\)"),
], ids=["own", "objects", "float", "dimensions"])
def test_an_unknown_codec_of_petastorm_is_told(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, value: Any, message: str, url: bool) -> None:
    if not isinstance(value, bytes):
        file, mark = io.BytesIO(), tmp_path / "mark"
        np.save(file, np.array([Malicious(mark)], dtype=object) if isinstance(value, str) else value)
        value = file.getvalue()
    good = io.BytesIO()
    np.save(good, picture(0, 6, 5))
    (tmp_path / "in").mkdir()
    values = [good.getvalue()] * 3 + [value]
    pq.write_table(pa.table({"picture": values, "label": [0, 1, 0, 1]}), tmp_path / "in" / "part-0.parquet")
    (tmp_path / "in" / "_common_metadata").write_bytes(b"not even Parquet" if not url else (
        tmp_path / "in" / "part-0.parquet").read_bytes())
    with pytest.raises(DataError, match=message):
        prepare(spark, image_recipe(remote_url(tmp_path / "in") if url else tmp_path / "in"), lake, silent)
    assert not (tmp_path / "mark").exists()


def test_in_a_plain_table_values_of_no_known_form_are_counted(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    values = [encoded(picture(number, 4, 4)) for number in range(20)]
    values += [b"what is this", b"\x93NUMPY\x01\x00\xff\xff{", b"PK\x03\x04x"]
    table = pa.table({"image": values, "label": [number % 2 for number in range(23)]})
    pq.write_table(table, tmp_path / "x.parquet")
    manifest = prepare(spark, image_recipe(tmp_path / "x.parquet"), lake, silent)
    assert rejected(lake, manifest) == {"undecodable": 3}
    check_facts(lake, manifest)
