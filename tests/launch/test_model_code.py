"""The code of a user's own model is part of what a run is."""

import pytest

from pipelines.errors import ConfigError, SparkringError
from pipelines.lake.paths import Lake
from pipelines.launch.identity import check_run_id, default_run_id
from pipelines.launch.local import prepare_run
from pipelines.models.factory.settings import FactoryModel
from pipelines.models.facts import model_facts
from tests.support.example_data import example_config, publish_example
from tests.support.rank_processes import run_workers
from tests.track.conftest import save_state

pytestmark = pytest.mark.processes

MODEL = """
from torch import nn
import json
from parts import Middle
from pipelines.models.layered import LayeredModel

def build(vocabulary_size, sequence_length, width=8):
    return LayeredModel([("table", nn.Embedding(vocabulary_size, width)), ("middle", Middle(width)),
                         ("logits", nn.Linear(width, vocabulary_size))])
"""
PARTS = """
from torch import nn

class Middle(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.out = nn.Linear(width, width)

    def forward(self, hidden_BTD):
        from numbers_of_mine import SCALE
        return hidden_BTD + SCALE * self.out(hidden_BTD)
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder of modules as a user has it on PYTHONPATH."""
    folder = tmp_path / "code"
    (folder / "package").mkdir(parents=True)
    for name, text in {"my_model": MODEL, "parts": PARTS, "numbers_of_mine": "SCALE = 0.5\n", "unused": "",
                       "package/__init__": "", "package/parts": PARTS,
                       "package/model": MODEL.replace("from parts", "from .parts")}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    return folder


def config_of(factory="my_model:build", **overrides):
    return example_config(model={"factory": factory}, layout__num_replicas=1, **overrides)


def test_a_run_is_named_after_the_source_of_the_model_and_of_what_it_imports_of_the_users_own(tmp_path, code):
    manifest, recipe = publish_example(Lake.at(tmp_path)), config_of().recipe
    facts = model_facts(recipe, manifest)
    assert sorted(facts.code) == ["layers and parameters", "my_model", "numbers_of_mine", "parts"]
    first = default_run_id(recipe, manifest)
    (code / "unused.py").write_text("X = 1\n")
    assert default_run_id(recipe, manifest) == first
    (code / "numbers_of_mine.py").write_text("SCALE = 0.25\n")  # imported when the layer is run
    assert default_run_id(recipe, manifest) != first
    (code / "numbers_of_mine.py").write_text("SCALE = 0.5\n")
    assert default_run_id(recipe, manifest) == first
    packaged = model_facts(config_of("package.model:build").recipe, manifest)
    assert sorted(packaged.code) == ["layers and parameters", "numbers_of_mine", "package", "package.model", "package.parts"]


def test_a_structure_that_no_source_shows_names_another_run(tmp_path, code, monkeypatch):
    (code / "my_model.py").write_text(MODEL.replace("width=8):", "width=8):\n    import os; width = int(os.environ['WIDTH'])"))
    manifest, recipe = publish_example(Lake.at(tmp_path)), config_of().recipe
    found = []
    for width in ("8", "16"):
        monkeypatch.setenv("WIDTH", width)
        (code / "my_model.py").touch()
        found.append(default_run_id(recipe, manifest))
    assert found[0] != found[1]


def test_a_named_run_of_other_code_is_refused_naming_what_changed(tmp_path, code):
    lake = Lake.at(tmp_path)
    manifest, recipe = publish_example(lake), config_of().recipe
    run_id = default_run_id(recipe, manifest)
    model_code = model_facts(recipe, manifest).code
    save_state(lake, "mine", status="failed", recipe_hash=run_id.rpartition("-")[2], model_code=model_code)
    assert check_run_id(lake.run("mine"), recipe, manifest).run_id == "mine"
    (code / "parts.py").write_text(PARTS + "# changed\n")
    with pytest.raises(ConfigError, match=r"--run-id mine: belongs to another recipe: the code of model.factory "
                                          r"my_model:build has changed since \(parts\)"):
        check_run_id(lake.run("mine"), recipe, manifest)
    other = recipe.model_copy(update={"model": FactoryModel(factory="package.model:build")})
    with pytest.raises(ConfigError, match=r"--run-id mine: belongs to another recipe or dataset"):
        check_run_id(lake.run("mine"), other, manifest)


def test_a_rank_that_finds_other_code_than_the_driver_is_refused(tmp_path, code):
    lake = Lake.at(tmp_path)
    run = prepare_run(lake, config_of(), publish_example(lake))
    (code / "parts.py").write_text(PARTS + "# another version\n")
    with pytest.raises(SparkringError, match=r"my_model:build on .* is not what the driver looked at \(parts differs\)"):
        run_workers(run)
