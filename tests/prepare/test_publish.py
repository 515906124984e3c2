"""A version appears whole, once, however often and by however many it is prepared, and whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipelines.errors import AlreadyRunningError, DataError, SparkringError
from pipelines.lake.paths import Lake
from pipelines.prepare.prepare import plan_prepare, prepare
from pipelines.prepare.publish import publish_dataset_row, version_claimed
from pipelines.prepare.text import language_manifest
from tests.prepare.conftest import make_recipe, write_texts
from tests.prepare.test_inputs import grow

pytestmark = pytest.mark.processes

Report = Callable[[str], None]

KILLED_BEFORE_THE_RENAME = """
import os, signal, sys
from pipelines.config import Platform, Recipe
from pipelines.prepare.prepare import prepare
from pipelines.spark.session import spark_session
from pipelines.lake.paths import Lake

def report(message):
    if "tokens packed" in message:
        os.killpg(0, signal.SIGKILL)

with spark_session(Platform.model_validate({"spark": {"master": "local[1]"}}), "killed") as spark:
    prepare(spark, Recipe.model_validate_json(sys.argv[1]), Lake.at(sys.argv[2]), report)
"""


def test_a_killed_prepare_leaves_nothing_visible_and_the_next_one_works(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    write_texts(tmp_path / "in", 20)
    (tmp_path / "in" / "bad.txt").write_bytes(b"\xff")
    recipe = make_recipe(tmp_path / "in")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYSPARK_GATEWAY", "SPARK_"))}
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_THE_RENAME, recipe.model_dump_json(), str(lake.root)],
                            cwd=Path(__file__).parents[2], env=environment, start_new_session=True, timeout=240,
                            capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode(errors="replace")
    left = list((lake.root / lake.datasets("test")).iterdir())
    assert left and all(path.name.startswith(".") for path in left)
    assert not plan_prepare(recipe, lake).exists
    manifest = prepare(spark, recipe, lake, silent)
    assert [path.name for path in (lake.root / lake.datasets("test")).iterdir()] == [manifest.version]
    for table in ("rejected", "datasets"):
        assert len(pd.read_parquet(lake.root / lake.table(table))) == 1


def test_a_failed_prepare_leaves_no_folder_and_keeps_the_versions_before(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "in", 20)
    before = prepare(spark, make_recipe(tmp_path / "in"), lake, silent)

    def fail(*arguments: object) -> None:
        raise SparkringError("here", "on purpose")

    monkeypatch.setattr(language_manifest, "_name_shards", fail)
    with pytest.raises(SparkringError, match="on purpose"):
        prepare(spark, make_recipe(tmp_path / "in", sequence_length=20), lake, silent)
    assert [path.name for path in (lake.root / lake.datasets("test")).iterdir()] == [before.version]


@pytest.mark.parametrize("change", [grow, Path.unlink], ids=["grows", "vanishes"])
def test_input_that_changes_while_prepare_runs_is_not_published(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, change: Callable[[Path], None]) -> None:
    write_texts(tmp_path / "in", 20)
    recipe, path = make_recipe(tmp_path / "in"), tmp_path / "in" / "0007.txt"
    content, listed = path.read_bytes(), path.stat()

    def meanwhile(message: str) -> None:
        if "tokenizer ready" in message:
            change(path)

    with pytest.raises(DataError, match=r"0007\.txt: input changed while it was read") as error:
        prepare(spark, recipe, lake, meanwhile)
    assert error.value.exit_code == 3
    assert not list((lake.root / lake.datasets("test")).iterdir()) and not (lake.root / lake.table("rejected")).exists()
    path.write_bytes(content)
    os.utime(path, ns=(listed.st_atime_ns, listed.st_mtime_ns))
    assert prepare(spark, recipe, lake, silent).counts["documents"] == 20


def test_a_second_prepare_of_the_same_version_is_refused_while_the_first_runs(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    write_texts(tmp_path / "in", 20)
    recipe = make_recipe(tmp_path / "in")
    version = plan_prepare(recipe, lake).version or ""
    with version_claimed(lake, "test", version), pytest.raises(AlreadyRunningError, match=version):
        prepare(spark, recipe, lake, silent)
    assert prepare(spark, recipe, lake, silent).version == version


def test_a_writer_without_our_claim_that_was_first_wins(
        spark: SparkSession, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "in", 20)
    recipe, other = make_recipe(tmp_path / "in"), Lake.at(tmp_path / "other")
    first = prepare(spark, recipe, other, lambda message: None)

    def meanwhile(message: str) -> None:
        if "tokens packed" in message:
            (other.root / other.dataset("test", first.version)).rename(lake.root / lake.dataset("test", first.version))

    assert prepare(spark, recipe, lake, meanwhile) == first
    assert [path.name for path in (lake.root / lake.datasets("test")).iterdir()] == [first.version]


def test_only_the_stale_folders_of_the_claimed_version_are_removed(lake: Lake) -> None:
    for name in (".tmp-aaaa-1", ".tmp-bbbb-2"):
        (lake.root / lake.datasets("test") / name).mkdir(parents=True)
    with version_claimed(lake, "test", "aaaa"):
        assert sorted(path.name for path in (lake.root / lake.datasets("test")).iterdir()) == [".lock-aaaa", ".tmp-bbbb-2"]


def test_a_claim_is_free_again_when_its_holder_ends(lake: Lake) -> None:
    for _ in range(2):
        with version_claimed(lake, "test", "aaaa"):
            pass
    assert not list((lake.root / lake.datasets("test")).iterdir())


def test_the_row_of_a_version_is_there_once_however_often_it_is_published(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    write_texts(tmp_path / "in", 20)
    recipe = make_recipe(tmp_path / "in")
    manifest = prepare(spark, recipe, lake, silent)
    before = pd.read_parquet(lake.root / lake.table("datasets"))
    publish_dataset_row(manifest, lake)
    next((lake.root / lake.table("datasets")).iterdir()).unlink()  # as if killed between the rename and the row
    prepare(spark, recipe, lake, silent)
    pd.testing.assert_frame_equal(pd.read_parquet(lake.root / lake.table("datasets")), before)


def test_a_version_that_was_made_without_files_that_could_not_be_read_is_not_used(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report) -> None:
    write_texts(tmp_path / "in", 20)
    recipe = make_recipe(tmp_path / "in")
    manifest = prepare(spark, recipe, lake, silent)
    incomplete = replace(manifest, counts={**manifest.counts, "rejected_unreadable": 2})  # as the first release wrote it
    incomplete.save(lake.store.below(lake.dataset("test", manifest.version)))
    with pytest.raises(DataError, match="was made without 2 files that could not be read; .*prepare again"):
        prepare(spark, recipe, lake, silent)


@pytest.mark.parametrize("damage", ["remove", "truncate", "manifest"])
def test_a_damaged_version_is_named_and_not_used(
        spark: SparkSession, lake: Lake, tmp_path: Path, silent: Report, damage: str) -> None:
    write_texts(tmp_path / "in", 20)
    recipe = make_recipe(tmp_path / "in")
    manifest = prepare(spark, recipe, lake, silent)
    folder = lake.root / lake.dataset("test", manifest.version)
    shard = folder / manifest.shards("train")[0].path
    if damage == "truncate":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        (shard if damage == "remove" else folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="prepare again"):
        prepare(spark, recipe, lake, silent)
