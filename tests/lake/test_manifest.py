"""The manifest of a dataset, as it is written now and as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.config import Recipe
from pipelines.errors import DataError
from pipelines.lake.manifest import MANIFEST_NAME, Baseline
from pipelines.lake.store import FolderStore
from pipelines.lake.task_facts import Column, TaskFacts
from pipelines.prepare.inputs import dataset_version, recipe_hash
from pipelines.prepare.text.language_rows import language_facts
from tests.support.shard_files import manifest_for, manifest_in

FIRST = """{
  "name": "plays", "version": "b0a5c3a1d2e4f607", "sequence_length": 16, "vocabulary_size": 257, "end_of_text_id": 256,
  "tokenizer_sha256": "aa11", "input_fingerprint": "bb22", "recipe_hash": "cc33",
  "splits": {"train": [{"path": "train-00000.parquet", "row_groups": [[2, 8], [1, 3]], "bytes": 900, "sha256": "dd44"}],
             "validation": [{"path": "validation-00000.parquet", "row_groups": [4], "bytes": 300, "sha256": "ee55"}]},
  "counts": {"bigram_train_tokens": 290, "bigram_validation_tokens": 60, "documents": 7, "input_records": 9,
             "rejected_empty": 2, "train_tokens": 1300, "validation_tokens": 60},
  "baselines": {"uniform": 5.549, "unigram": 3.25, "bigram": 2.5},
  "source": {"inputs": [{"path": "plays.txt"}]}, "format_version": 1
}"""


def test_a_manifest_of_the_first_format_is_the_same_dataset(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(FIRST)
    found = manifest_in(tmp_path)
    assert found.task == language_facts(sequence_length=16, vocabulary_size=257, end_of_text_id=256, tokenizer_sha256="aa11")
    assert (found.name, found.version, found.recipe_hash, found.input_fingerprint) == (
        "plays", "b0a5c3a1d2e4f607", "cc33", "bb22")
    assert (found.rows("train"), found.rows("validation")) == (19, 4)
    assert found.units == {"train": 1300, "validation": 60}
    assert found.counts == {"documents": 7, "input_records": 9, "rejected_empty": 2}
    assert found.baselines == (
        Baseline("guessing", 5.549), Baseline("token frequencies", 3.25),
        Baseline("a bigram model", 2.5, "which token follows which; counted on 290 of 1,300 train tokens, asked for 60 "
                                        "validation tokens"))
    found.save(FolderStore(tmp_path))
    assert manifest_in(tmp_path) == found and json.loads((tmp_path / MANIFEST_NAME).read_text())["format_version"] == 2


def test_a_first_manifest_without_a_bigram_baseline_has_the_others(tmp_path: Path) -> None:
    content = json.loads(FIRST)
    del content["baselines"]["bigram"], content["counts"]["bigram_train_tokens"], content["counts"]["bigram_validation_tokens"]
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(content))
    assert [baseline.name for baseline in manifest_in(tmp_path).baselines] == ["guessing", "token frequencies"]


def test_the_version_of_the_same_input_and_recipe_is_what_it_always_was() -> None:
    prepare = Recipe.model_validate({"name": "plays", "prepare": {"inputs": [{"path": "plays.txt"}]}}).prepare
    assert (recipe_hash(prepare), dataset_version("cc33", "bb22")) == ("257ac7d8d92caba1", "218ca7b3c3380b41")


def test_a_manifest_of_any_task_comes_back_as_it_was_written(tmp_path: Path) -> None:
    task = TaskFacts("classification", (Column("image", "uint8", (3, 8, 8)), Column("label", "int32", allowed=(0, 9))),
                     {"channels": 3, "num_classes": 10}, "samples", 1, "nats per sample", None, {"class_names": ["a", "b"]})
    manifest_for(task, []).save(FolderStore(tmp_path))
    assert manifest_in(tmp_path) == manifest_for(task, [])


@pytest.mark.parametrize("content", [
    "{}", "[]", FIRST.replace('"sequence_length": 16, ', ""), FIRST.replace('"counts": {', '"counts": 3, "other": {'),
    FIRST.replace('"format_version": 1', '"format_version": 3')])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(DataError, match="prepare the dataset again"):
        manifest_in(tmp_path)
