"""Images on a real local Spark session: what goes in comes out, counted, once."""

from __future__ import annotations

import gzip
import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from pipelines.config.platform import Reader
from pipelines.errors import DataError
from pipelines.feed.batches import EvaluationFeed, Share
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.prepare.images.image_names import refuse_splits_as_classes
from pipelines.prepare.images.image_pieces import format_of_content
from pipelines.prepare.images.remote_images import HEAD_BYTES
from pipelines.prepare.prepare import plan_prepare, prepare
from tests.conftest import ROOT
from tests.prepare.conftest import remote_url
from tests.prepare.images.conftest import (
    channels_first,
    check_facts,
    encoded,
    every_row,
    idx,
    image_recipe,
    picture,
    rejected,
    rejected_rows,
    rows,
    write_idx,
    write_pictures,
)

pytestmark = pytest.mark.processes

Report = Callable[[str], None]
MNIST = Path(os.environ.get("SPARKRING_DATA", ROOT.parent / "shared/data")) / "mnist"
CLASSES = {"cat": 12, "dog": 9, "emu": 15}


@pytest.fixture
def silent() -> Report:
    return lambda message: None


def test_real_digits_of_idx_files_come_back(spark: SparkSession, lake: Lake, silent: Report) -> None:
    assert MNIST.is_dir(), f"the original MNIST files are wanted in {MNIST}; set SPARKRING_DATA to the folder above"
    recipe = image_recipe(MNIST, split={"validation_rows": 1000, "test_rows": 500}, rows_per_row_group=None, name="mnist")
    manifest = prepare(spark, recipe, lake, silent)
    assert {split: manifest.rows(split) for split in manifest.splits} == {"train": 8500, "validation": 1000, "test": 500}
    assert manifest.task.sizes == {"channels": 1, "height": 28, "width": 28, "num_classes": 10}
    assert manifest.task.facts["classes"] == [str(digit) for digit in range(10)]
    assert abs(manifest.task.facts["mean"][0] - 0.132) < 0.002  # 0.1325 of these 10,000, as torchvision says of all 0.1307
    check_facts(lake, manifest)
    assert prepare(spark, recipe, lake, silent) == manifest == Manifest.load(lake.store.below(lake.dataset("mnist",
                                                                                                        manifest.version)))
    row = spark.read.parquet(str(lake.root / lake.table("datasets"))).first()
    assert row and (row.task, row.unit, row.test_rows) == ("classification", "samples", 500)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("url", [False, True])
def test_idx_files_are_read_zipped_or_not_from_a_folder_or_a_url_whatever_their_names(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, zipped: bool, url: bool) -> None:
    images, labels = picture(0, 50, 5, 4), np.arange(50, dtype=np.uint8) % 3 + 9  # 9, 10, 11: by value, not by spelling
    write_idx(tmp_path / "in", images, labels, zipped=zipped)
    for name, path in zip(("pictures 1%.bin", "answers"), sorted((tmp_path / "in").iterdir()), strict=True):
        path.rename(path.with_name(name))
    manifest = prepare(spark, image_recipe(remote_url(tmp_path / "in") if url else tmp_path / "in"), lake, silent)
    assert manifest.task.facts["classes"] == ["9", "10", "11"]
    assert sorted(every_row(lake, manifest)) == sorted(
        (image.tobytes(), str(label)) for image, label in zip(images, labels, strict=True))
    check_facts(lake, manifest)


@pytest.mark.parametrize("last", [True, False])
def test_idx_files_hold_colours_in_the_last_dimension_or_the_second(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, last: bool) -> None:
    images, labels = picture(0, 30, 6, 5, 3), np.arange(30, dtype=np.uint8) % 2
    write_idx(tmp_path / "in", images if last else np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels)
    manifest = prepare(spark, image_recipe(tmp_path / "in"), lake, silent)
    assert sorted(image for image, _ in every_row(lake, manifest)) == sorted(map(channels_first, images))


@pytest.mark.parametrize("url", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3)], ids=["gray", "colour"])
def test_folders_of_images_are_classes(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, url: bool, shape: tuple[int, ...]) -> None:
    folder = tmp_path / "ein Ordner"
    classes_of = write_pictures(folder, CLASSES, *shape)
    (folder / "cat" / "deep").mkdir()
    (folder / "cat" / "0000.png").rename(folder / "cat" / "deep" / "0 %25 é.png")
    (folder / "_hidden").mkdir()
    (folder / "_hidden" / "x.png").write_bytes(encoded(picture(99, *shape)))
    manifest = prepare(spark, image_recipe(remote_url(folder) if url else folder), lake, silent)
    assert dict(every_row(lake, manifest)) == classes_of and len(every_row(lake, manifest)) == len(classes_of)
    assert manifest.task.facts["classes"] == ["cat", "dog", "emu"]
    check_facts(lake, manifest)


@pytest.mark.parametrize("url", [False, True])
def test_what_cannot_be_used_is_counted_by_its_reason(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, url: bool) -> None:
    folder = tmp_path / "in"
    write_pictures(folder, CLASSES, 8, 8, 3)
    same, jpeg = (folder / "cat/0000.png").read_bytes(), encoded(picture(50, 8, 8, 3), "JPEG")
    bomb = encoded(Image.new("L", (300, 300)))
    for name, content in (("cat/text.png", b"not an image"), ("cat/cut.jpg", jpeg[: len(jpeg) // 2]), ("cat/none.png", b""),
                          ("dog/bomb.png", bomb), ("cat/z-again.png", same), ("dog/again.png", same), ("alone.png", jpeg),
                          ("owl/new.png", jpeg), ("cat/long.png", encoded(picture(51, 8, 8, 3)) + b"x" * 5000)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    recipe = image_recipe(remote_url(folder) if url else folder, classes=["emu", "dog", "cat"], max_image_pixels=80_000,
                          max_image_bytes=4000)
    said: list[str] = []
    manifest = prepare(spark, recipe, lake, said.append)
    assert rejected(lake, manifest) == {"undecodable": 2, "empty": 1, "oversized": 2, "duplicate": 1, "contradiction": 1,
                                        "unlabelled": 1, "unknown_label": 1}
    assert manifest.counts["images"] == sum(CLASSES.values())
    assert manifest.task.facts["classes"] == ["emu", "dog", "cat"]
    check_facts(lake, manifest)
    assert any("records (20%) were rejected" in line for line in said)
    contradiction = rejected_rows(lake, manifest).set_index("reason").loc["contradiction"]
    assert "cat/0000.png at 0, which has another label" in contradiction["detail"]


@pytest.mark.parametrize("url", [False, True])
def test_splits_are_taken_from_folders(spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, url: bool) -> None:
    folder, expected = tmp_path / "in", {}
    for number, (name, split) in enumerate((("train", "train"), ("val", "validation"), ("test", "test"))):
        expected[split] = write_pictures(folder / name, {"a": 9, "b": 9}, 4, 4, first_seed=100 * number)
    (folder / "extra" / "a").mkdir(parents=True)
    (folder / "extra" / "a" / "x.png").write_bytes(encoded(picture(999, 4, 4)))
    recipe = image_recipe(remote_url(folder) if url else folder, split={"kind": "folder"})
    manifest = prepare(spark, recipe, lake, silent)
    assert {split: dict(rows(lake, manifest, split)) for split in manifest.splits} == expected
    assert rejected(lake, manifest) == {"unknown_split": 1}
    check_facts(lake, manifest)


def test_mnists_own_names_say_train_and_test_and_validation_is_taken_from_train(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    for prefix, seed in (("train", 0), ("t10k", 1)):
        write_idx(tmp_path / "in", picture(seed, 60, 4, 4), np.arange(60, dtype=np.uint8) % 2, prefix)
    recipe = image_recipe(tmp_path / "in", split={"kind": "folder", "validation_fraction": 0.2})
    manifest = prepare(spark, recipe, lake, silent)
    assert sorted(image for image, _ in rows(lake, manifest, "test")) == sorted(map(channels_first, picture(1, 60, 4, 4)))
    assert 0 < manifest.rows("validation") < 30 and manifest.rows("train") + manifest.rows("validation") == 60


@pytest.mark.parametrize("deduplicate", [True, False])
def test_exact_numbers_are_exact_whatever_is_rejected(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, deduplicate: bool) -> None:
    write_pictures(tmp_path / "in", {"a": 30, "b": 30}, 3, 3)
    for number in range(10):  # with deduplicate: false they are rows, all of one hash
        (tmp_path / "in" / "a" / f"again-{number}.png").write_bytes((tmp_path / "in/a/0000.png").read_bytes())
        (tmp_path / "in" / "b" / f"bad-{number}.png").write_bytes(b"?")
    recipe = image_recipe(tmp_path / "in", split={"validation_rows": 17, "test_rows": 11}, deduplicate=deduplicate,
                          shard_bytes=100)
    manifest = prepare(spark, recipe, lake, silent)
    assert (manifest.rows("validation"), manifest.rows("test")) == (17, 11)
    assert manifest.rows("train") == 60 - 28 + (0 if deduplicate else 10)
    assert len(manifest.shards("train")) > 1
    check_facts(lake, manifest)


def test_the_same_images_in_other_files_give_the_same_rows(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    write_pictures(tmp_path / "png", CLASSES, 8, 8, 3)
    for path in (tmp_path / "png").rglob("*.png"):
        target = tmp_path / "webp" / path.parent.name / f"{path.stem}.webp"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encoded(Image.open(path), "WEBP", lossless=True))
    first, second = (prepare(spark, image_recipe(tmp_path / form, name=form), lake, silent) for form in ("png", "webp"))
    assert [shard.sha256 for shards in first.splits.values() for shard in shards] == [
        shard.sha256 for shards in second.splits.values() for shard in shards]
    assert first.version != second.version


def test_images_of_several_sizes_become_one_size(spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    for number in range(24):
        folder = tmp_path / "in" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded(picture(number, 8 + number, 9, *[3] * (number % 3 == 0))))
    manifest = prepare(spark, image_recipe(tmp_path / "in", size=[6, 5], channels=3), lake, silent)
    assert manifest.task.sizes == {"channels": 3, "height": 6, "width": 5, "num_classes": 2}
    assert manifest.counts["images"] == 24
    gray = prepare(spark, image_recipe(tmp_path / "in", size=[6, 5], channels=1, name="gray"), lake, silent)
    assert gray.task.sizes["channels"] == 1
    check_facts(lake, manifest)


@pytest.mark.parametrize(("faulty", "message"), [
    (picture(99, 9, 8, 3), "is 9 x 8 where .* is 8 x 8; set prepare.size"),
    (picture(99, 8, 8), "has 1 channels where .* has 3; set prepare.channels to 1"),
])
def test_images_that_are_not_alike_need_a_rule(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, faulty: np.ndarray, message: str) -> None:
    write_pictures(tmp_path / "in", CLASSES, 8, 8, 3)
    (tmp_path / "in/emu/other.png").write_bytes(encoded(faulty))
    with pytest.raises(DataError, match=message):
        prepare(spark, image_recipe(tmp_path / "in"), lake, silent)
    with pytest.raises(DataError, match="other.png"):
        prepare(spark, image_recipe(remote_url(tmp_path / "in")), lake, silent)
    assert not (lake.root / lake.datasets("pictures")).exists() or not list((lake.root / lake.datasets("pictures")).iterdir())


def _splits_on_top(folder: Path) -> dict[str, Any]:
    for number, split in enumerate(("train", "test", "Val")):
        write_pictures(folder / split, CLASSES, 4, 4, first_seed=1000 * number)
    return {}


def _only_in_validation(folder: Path) -> dict[str, Any]:
    write_pictures(folder / "train", {"a": 9}, 4, 4)
    write_pictures(folder / "validation", {"a": 3, "b": 3}, 4, 4, first_seed=50)
    return {"split": {"kind": "folder"}}


def _empty_class(folder: Path) -> dict[str, Any]:
    write_pictures(folder, CLASSES, 4, 4)
    (folder / "fox").mkdir()
    return {}


def _empty_given_class(folder: Path) -> dict[str, Any]:
    write_pictures(folder, CLASSES, 4, 4)
    return {"classes": ["cat", "dog", "emu", "fox"]}


def _one_class(folder: Path) -> dict[str, Any]:
    write_pictures(folder, {"cat": 4}, 4, 4)
    return {}


def _no_image(folder: Path) -> dict[str, Any]:
    for name in "ab":
        (folder / name).mkdir(parents=True)
        (folder / name / "x.png").write_bytes(b"x")
    return {}


def _none_left(folder: Path) -> dict[str, Any]:
    return {**_no_image(folder), "size": [4, 4], "channels": 1}


def _too_many_wanted(folder: Path) -> dict[str, Any]:
    write_pictures(folder, {"a": 5, "b": 5}, 4, 4)
    return {"split": {"validation_rows": 6, "test_rows": 4}}


def _no_validation(folder: Path) -> dict[str, Any]:
    write_pictures(folder / "train", {"a": 5, "b": 5}, 4, 4)
    return {"split": {"kind": "folder"}}


def _without_labels(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(picture(0, 5, 4, 4)))
    return {}


def _mismatch(folder: Path) -> dict[str, Any]:
    write_idx(folder, picture(0, 20, 4, 4), np.zeros(19, np.uint8))
    return {}


def _header_with_wrong_counts(folder: Path) -> dict[str, Any]:
    write_idx(folder, picture(0, 20, 4, 4), np.arange(20, dtype=np.uint8) % 2, zipped=False)
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    return {}


def _zipped_header_with_wrong_counts(folder: Path) -> dict[str, Any]:
    write_idx(folder, picture(0, 20, 4, 4), np.arange(20, dtype=np.uint8) % 2)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(picture(0, 20, 4, 4))[:-5]))
    return {}


def _labels_with_wrong_counts(folder: Path) -> dict[str, Any]:
    write_idx(folder, picture(0, 20, 4, 4), np.zeros(20, np.uint8), zipped=False)
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"\0")
    return {}


def _floats(folder: Path) -> dict[str, Any]:
    write_idx(folder, picture(0, 20, 4, 4), np.zeros(20, np.uint8), zipped=False)
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((20, 4, 4), np.float32), kind=0x0D))
    return {}


def _not_idx(folder: Path) -> dict[str, Any]:
    write_pictures(folder, CLASSES, 4, 4)
    return {"inputs": [{"path": str(folder), "format": "idx"}]}


@pytest.mark.parametrize(("make", "message"), [
    (_splits_on_top, "prepare.inputs.0.path: its folders are called Val, test, train, as splits are, and would be the classes; "
                     "set prepare.split.kind: folder, and they are the splits"),
    (_only_in_validation, "class 'b' has no image to train on .3 in validation"),
    (_empty_class, "fox' is the folder of a class, and holds no file; put images there"),
    (_empty_given_class, "class 'fox' has no image to train on"),
    (_one_class, r"the labels are of 1 class \(cat\); at least 2"),
    (_no_image, "none of the first 2 files is an image that can be read, for example .*a/x.png"),
    (_none_left, "no image is left: all of 2 records were rejected .2 undecodable"),
    (_too_many_wanted, "validation_rows and test_rows are 10 together, and there are 10 images"),
    (_no_validation, "the validation split is empty: 10 images"),
    (_without_labels, "t10k-images-idx3-ubyte has no file of labels"),
    (_mismatch, "holds 20 images, .* 19 labels; give files that belong together"),
    (_header_with_wrong_counts, "has 335 bytes; its header says 20 images of 16 bytes"),
    (_zipped_header_with_wrong_counts, "ends within row 19; its header says 20 rows"),
    (_labels_with_wrong_counts, "holds more than the 20 rows that its header says"),
    (_floats, "holds values of float32; only uint8"),
    (_not_idx, "is not an IDX file: it begins with 89 50 4e 47"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_what_cannot_become_a_dataset_is_told(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, make: Callable[[Path], dict[str, Any]],
        message: str) -> None:
    settings = make(tmp_path / "in")
    recipe = image_recipe(*settings.pop("inputs", [tmp_path / "in"]), **settings)
    with pytest.raises(DataError, match=message):
        prepare(spark, recipe, lake, silent)
    assert plan_prepare(recipe, lake).exists is False


def test_folders_called_as_splits_are_refused_as_classes_at_a_url_and_taken_where_the_recipe_says_what_they_are(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    for split, seed in (("train", 0), ("test", 1000)):
        write_pictures(tmp_path / "in" / split, CLASSES, 4, 4, first_seed=seed)
    with pytest.raises(DataError, match="its folders are called test, train, as splits are"):
        prepare(spark, image_recipe(remote_url(tmp_path / "in")), lake, silent)
    named = prepare(spark, image_recipe(tmp_path / "in", classes=["train", "test"]), lake, silent)
    assert named.task.facts["classes"] == ["train", "test"] and "test" not in named.splits
    split = {"kind": "folder", "validation_fraction": 0.3}
    assert prepare(spark, image_recipe(tmp_path / "in", split=split), lake, silent).rows("test") == sum(CLASSES.values())


@pytest.mark.parametrize("folders", [{"train", "car"}, {"test", "validation"}, {"a", "b"}, set()])
def test_folders_of_which_one_is_no_split_or_none_is_to_train_on_are_classes(folders: set[str]) -> None:
    refuse_splits_as_classes(folders, "prepare.inputs.0.path")


@pytest.mark.parametrize(("content", "found"), [
    (idx(np.zeros(50_000, np.uint8)), "idx"), (gzip.compress(idx(picture(0, 100, 40, 40))), "idx"), (b"PAR1", "table"),
    (encoded(picture(0, 4, 4)), None), (b"", None), (gzip.compress(b"text"), None)],
    ids=["pixels", "packed pixels", "a table", "an image", "nothing", "packed text"])
def test_what_a_file_is_stands_in_its_beginning(content: bytes, found: str | None) -> None:
    assert format_of_content(io.BytesIO(content[:HEAD_BYTES]), len(content)) == found


def files_in(lake: Lake, manifest: Manifest) -> list[bytes]:
    folder = lake.root / lake.dataset(manifest.name, manifest.version)
    return [file for shards in manifest.splits.values() for shard in shards
            for file in pq.read_table(folder / shard.path)["image"].to_pylist()]


@pytest.mark.parametrize("url", [False, True])
def test_encoded_shards_keep_files_that_need_no_change_and_say_the_same_of_their_pixels(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, url: bool) -> None:
    given = {}
    for number in range(30):
        folder = tmp_path / "in" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        form = ("PNG", "JPEG", "WEBP")[number % 3]
        content = encoded(picture(number, 8, 6, 3), form)
        (folder / f"{number}.{form.lower()}").write_bytes(content)
        given[content] = "ab"[number % 2]
    place = remote_url(tmp_path / "in") if url else tmp_path / "in"
    plain = prepare(spark, image_recipe(place, name="plain"), lake, silent)
    kept = prepare(spark, image_recipe(place, storage="encoded"), lake, silent)
    assert sorted(files_in(lake, kept)) == sorted(given)
    for split in ("train", "validation"):
        assert rows(lake, kept, split) == rows(lake, plain, split)
    assert kept.task.facts == plain.task.facts and kept.baselines == plain.baselines
    check_facts(lake, kept)


def test_encoded_shards_hold_changed_images_as_new_files(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    for number in range(24):
        folder = tmp_path / "in" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        form = ("PNG", "JPEG")[number % 4 // 2]
        (folder / f"{number}.{form}").write_bytes(encoded(picture(number, 20, 16, 3), form))
    recipe = image_recipe(tmp_path / "in", storage="encoded", size=[8, 8])
    manifest = prepare(spark, recipe, lake, silent)
    assert Counter(file[:3] for file in files_in(lake, manifest)) == {b"\xff\xd8\xff": 12, b"\x89PN": 12}
    check_facts(lake, manifest)
    digits = prepare(spark, image_recipe(MNIST, storage="encoded", split={"validation_rows": 9}, name="digits"), lake, silent)
    plain = prepare(spark, image_recipe(MNIST, split={"validation_rows": 9}, name="plain"), lake, silent)
    assert digits.task.facts == plain.task.facts and rows(lake, digits, "validation") == rows(lake, plain, "validation")


@pytest.mark.parametrize("storage", ["pixels", "encoded"])
@pytest.mark.parametrize("kind", ["arrow", "petastorm"])
def test_both_readers_feed_every_split_as_it_was_written(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, kind: str, storage: str) -> None:
    classes_of = write_pictures(tmp_path / "in", CLASSES, 5, 6, 3)
    split = {"validation_fraction": 0.3, "test_fraction": 0.3}
    manifest = prepare(spark, image_recipe(tmp_path / "in", split=split, storage=storage), lake, silent)
    found: Counter[tuple[bytes, str]] = Counter()
    for name in ("train", "validation", "test"):
        feed = EvaluationFeed(lake.store.below(lake.dataset(manifest.name, manifest.version)), manifest, Reader(kind=kind),
                              Share(4), split=name)
        for batch in feed:
            assert batch.fields["image"].shape[1:] == (3, 5, 6)
            found.update((image.numpy().tobytes(), manifest.task.facts["classes"][label])
                         for image, label in zip(batch.fields["image"], batch.fields["label"], strict=True))
    assert found == Counter(classes_of.items())
    with pytest.raises(DataError, match="has no split holdout, only train, validation, test"):
        manifest.shards("holdout")


def test_a_recipe_of_images_is_read_back_as_it_was() -> None:
    recipe = image_recipe("x", size=[2, 3], split={"validation_rows": 3})
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe
