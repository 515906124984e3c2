"""The table of architectures: whatever a recipe can name is in it, and nobody else knows which models there are."""

import importlib
import re
from pathlib import Path

import pytest

from pipelines.config.models import MODEL_SECTIONS, FactoryModel, GptModel
from pipelines.models.architectures import ARCHITECTURES, architecture_of
from pipelines.models.build import build_model
from tests.support.example_data import example_config, sizes

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
FACTORY = {"factory": "tests.support.own_models:residual", "depth": 2}


def test_every_kind_of_model_that_a_recipe_can_name_has_an_architecture():
    assert ARCHITECTURES.keys() == MODEL_SECTIONS.keys()
    assert {kind: section.model_fields["kind"].default for kind, section in MODEL_SECTIONS.items()} == {
        kind: kind for kind in ARCHITECTURES}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_architecture_is_a_folder_with_its_facts_and_its_model(kind):
    architecture = ARCHITECTURES[kind]
    assert architecture.facts.__module__ == f"pipelines.models.{kind}.facts"
    assert architecture.model == f"pipelines.models.{kind}.model"
    module = importlib.import_module(architecture.model)
    assert callable(module.sketch) and callable(module.fill)


@pytest.mark.parametrize("model", [{}, {"kind": "gpt", "num_layers": 2}, FACTORY, {"kind": "factory", **FACTORY}])
def test_a_recipes_section_is_built_by_its_architecture(model):
    settings = example_config(model=model).recipe.model
    assert type(settings) is (FactoryModel if "factory" in model else GptModel)
    assert settings.users_factory == model.get("factory")
    assert architecture_of(settings) is ARCHITECTURES[settings.kind]
    assert list(build_model(settings, sizes(32, 16), seed=0).layers)[1:-1] == (
        ["residual_0", "residual_1"] if "factory" in model else [f"block_{i}" for i in range(settings.num_layers)])


def test_nothing_outside_an_architectures_folder_asks_which_model_it_has():
    asking = [str(path.relative_to(PIPELINES)) for path in PIPELINES.rglob("*.py")
              if re.search(r"isinstance\([^)]*(GptModel|FactoryModel)|\.kind == \"(gpt|factory)\"", path.read_text())]
    assert asking == []
