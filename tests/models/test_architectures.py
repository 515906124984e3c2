"""The table of architectures: whatever a recipe can name is in it, and nobody else knows which models there are."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.config.models import ARCHITECTURES, MODEL_SECTIONS
from pipelines.lake.paths import Lake
from pipelines.models.architectures import module_of
from pipelines.models.build import build_model
from pipelines.models.factory.settings import FactoryModel
from pipelines.models.gpt.settings import GptModel
from pipelines.tasks.table import TASKS
from tests.support.example_data import example_config, publish_example, sizes

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
FACTORY = {"factory": "tests.support.own_models:residual", "depth": 2}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_architecture_is_a_folder_with_its_settings_its_facts_and_its_model(kind):
    assert ARCHITECTURES[kind] == f"pipelines.models.{'pretrained' if kind == 'from' else kind}"
    assert MODEL_SECTIONS[kind].model_fields["kind"].default == kind
    assert MODEL_SECTIONS[kind].task in (*TASKS, None)
    settings = MODEL_SECTIONS[kind].model_construct(kind=kind)
    model = module_of(settings, "model")
    assert callable(module_of(settings, "facts").facts) and callable(model.sketch) and callable(model.fill)


@pytest.mark.parametrize("model", [{}, {"kind": "gpt", "num_layers": 2}, FACTORY, {"kind": "factory", **FACTORY}])
def test_a_recipes_section_is_built_by_its_architecture(model):
    settings = example_config(model=model).recipe.model
    assert type(settings) is (FactoryModel if "factory" in model else GptModel)
    assert settings.users_factory == model.get("factory")
    assert list(build_model(settings, sizes(32, 16), seed=0).layers)[1:-1] == (
        ["residual_0", "residual_1"] if "factory" in model else [f"block_{i}" for i in range(settings.num_layers)])


def test_nothing_outside_an_architectures_folder_asks_which_model_it_has():
    asking = [str(path.relative_to(PIPELINES)) for path in PIPELINES.rglob("*.py")
              if re.search(r"isinstance\([^)]*(GptModel|FactoryModel)|\.kind == \"(gpt|factory)\"", path.read_text())]
    assert asking == []


@pytest.mark.processes
def test_a_folders_settings_can_be_the_first_that_a_process_imports():
    code = ("from pipelines.models.gpt.settings import SECTION; from pipelines.config import Recipe; "
            "print(type(Recipe(name='x', prepare={'inputs': [{'path': 'x'}]}).model) is SECTION)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.processes
def test_a_further_architecture_is_one_folder_and_one_line(tmp_path):
    """It is added to a copy of this project, planned, trained on two segments and loaded there."""
    copy = tmp_path / "copy"
    shutil.copytree(PIPELINES, copy / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parents[1] / "support/bigram", copy / "pipelines/models/bigram")
    table = copy / "pipelines/config/models.py"
    begin, line = "ARCHITECTURES = {\n", '    "bigram": "pipelines.models.bigram",\n'
    table.write_text(table.read_text().replace(begin, begin + line))
    lake = Lake.at(tmp_path / "lake")
    manifest = publish_example(lake)
    files = []
    for name, content in json.loads(example_config().to_json()).items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(content))

    def run(*words):
        return subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120,
                              env={**os.environ, "PYTHONPATH": str(copy), "TMPDIR": str(tmp_path)})

    given = ["-m", "pipelines.launch.by_hand", str(lake.root / lake.dataset(manifest.name, manifest.version)), *map(str, files)]
    model = "model={kind: bigram, width: 5}"
    trained = run(*given, model, "train.steps=3", "layout.num_segments=2")
    assert trained.returncode == 0, trained.stderr
    folder = re.search(r"^models: (.*)$", trained.stdout, re.MULTILINE)[1]
    loaded = run("-c", "import sys; from pipelines.models.exported_model import load_model; m = load_model(sys.argv[1]); "
                 "print(m.settings, list(m.model.layers))", f"{folder}/best")
    assert loaded.stdout == "kind='bigram' width=5 ['table', 'logits']\n", loaded.stderr
    mistaken = run(*given, "model={kind: bigrm, width: 5}", "train.steps=3").stderr
    assert "did you mean 'bigram'?" in mistaken
    mistaken = run(*given, "model={kind: bigram, widht: 5}", "train.steps=3").stderr
    assert mistaken == "error: model.widht: unknown key (--set); did you mean 'width'?\n"
