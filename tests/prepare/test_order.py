"""What prepare does before Spark is there, and when it asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from pipelines.errors import DataError, ResourceError
from pipelines.lake.manifest import MANIFEST_NAME
from pipelines.lake.paths import Lake
from pipelines.prepare import inputs, prepare
from pipelines.prepare.prepare import PreparePlan, plan_prepare, prepare_planned
from tests.prepare.conftest import make_recipe, write_texts


def no_session() -> NoReturn:
    raise ResourceError("Spark", "is still starting", "wait")


def test_what_a_build_needs_begins_before_the_inputs_are_hashed(
        tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "in", 3)
    order = []
    monkeypatch.setattr(prepare, "fingerprint", lambda *asked: order.append("hash") or inputs.fingerprint(*asked))
    plan_prepare(make_recipe(tmp_path / "in"), lake, lambda plan: order.append("begin"))
    assert order == ["begin", "hash"]


def test_nothing_begins_where_there_may_be_nothing_to_do_or_the_input_is_missing(tmp_path: Path, lake: Lake) -> None:
    def begin(plan: PreparePlan) -> NoReturn:
        raise AssertionError("a build begins")

    write_texts(tmp_path / "in", 3)
    recipe = make_recipe(tmp_path / "in")
    made = lake.root / lake.dataset(recipe.name, "0123456789abcdef")
    made.mkdir(parents=True)
    (made / MANIFEST_NAME).write_text(f'{{"recipe_hash": "{inputs.recipe_hash(recipe.prepare)}"}}')
    assert plan_prepare(recipe, lake, begin).version is not None
    with pytest.raises(DataError):
        plan_prepare(make_recipe(tmp_path / "nowhere", name="other"), lake, begin)


@pytest.mark.parametrize("kind", ["bpe", "bytes"])
def test_the_tokenizer_of_local_text_is_ready_before_spark_is_waited_for(tmp_path: Path, lake: Lake, kind: str) -> None:
    write_texts(tmp_path / "in", 3)
    recipe, said = make_recipe(tmp_path / "in", tokenizer={"kind": kind}), []
    with pytest.raises(ResourceError, match="still starting"):
        prepare_planned(no_session, plan_prepare(recipe, lake), recipe, lake, said.append)
    assert any("tokenizer ready" in line for line in said)
    assert not list((lake.root / lake.datasets(recipe.name)).glob("*"))
