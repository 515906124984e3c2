"""What README says is so: its commands and snippets run, its files, settings and tables are there."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from gguf import GGUFReader
from pydantic import BaseModel
from pyspark.sql import SparkSession

from pipelines.cli import main
from pipelines.config import Platform, Recipe
from pipelines.config.load import load_config, load_predict
from pipelines.config.predictions import PredictFile
from pipelines.config.recipe import SECTION_KINDS
from pipelines.errors import ConfigError
from pipelines.lake.schemas import TABLE_DDL
from tests.conftest import ROOT
from tests.support.readme import README, block, blocks

RECIPE, PLATFORM = ROOT / "conf/recipes/gpt-demo.yaml", ROOT / "conf/platforms/local.yaml"
# The demo made small: a few seconds on the folder texts.
SMALL = ("prepare.inputs=[{path: texts}]", "prepare.tokenizer={kind: bytes}", "prepare.sequence_length=32",
         "prepare.split.validation_fraction=0.2", "data.num_lanes=4", "model.num_layers=1", "model.width=32",
         "train.global_batch_samples=8", "train.steps=4", "schedule.warmup_steps=1", "train.evaluate_every_steps=2")
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL))

FILE_NAME = r"\w+\.(py|md|yaml|lock|json|html|safetensors)"


@dataclass(frozen=True)
class Finished:
    """A folder that looks like a clone, in which README's main command has run, made small by overrides."""

    place: Path
    said: str

    @property
    def run_id(self) -> str:
        (run,) = (self.place / "lake/runs").iterdir()
        return run.name


def run(command: str, cwd: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    words = [*shlex.split(command), *(word for override in overrides for word in ("--set", override))]
    outside_of_make = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(words, cwd=cwd, env=outside_of_make, capture_output=True, text=True, timeout=200,
                          stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    place = tmp_path_factory.mktemp("readme") / "a clone"
    (place / "texts").mkdir(parents=True)
    for i in range(30):
        (place / "texts" / f"{i}.txt").write_text(f"def text_{i}(): return {i * 7}\n" * 10, encoding="utf-8")
    for name, target in ((".venv", Path(sys.prefix)), ("jobs", ROOT / "jobs"), ("conf", ROOT / "conf")):
        (place / name).symlink_to(target)
    shown, trained = block("Five minutes", 0).commands
    plan = run(shown, place, *SMALL)
    assert plan.returncode == 0 and "would be made" in plan.stdout, plan.stderr
    assert not (place / "lake").exists()
    done = run(trained, place, *SMALL)
    assert done.returncode == 0, done.stderr
    finished = Finished(place, done.stdout)
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["def f", "import"]}), place / "texts.parquet")
    for command in block("Predictions", 0).commands:
        predicted = run(command.replace("RUN", finished.run_id), place)
        assert predicted.returncode == 0 and "not predicted" not in predicted.stdout, predicted.stderr
    return finished


def test_every_block_is_run_by_a_test():
    run_by_tests = {
        tuple(word.value for word in node.args)
        for path in (ROOT / "tests").rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "block"}
    assert {(each.heading, each.index) for each in blocks()} == run_by_tests


def test_the_picture_names_packages():
    said = re.findall(r"^   \| (\w+)  |^ (\w+) -> (\w+) ->", block("sparkring", 0).text, re.MULTILINE)
    named = {name for names in said for name in names if name}
    assert named == {"prepare", "feed", "train", "parallel", "track"}
    assert [name for name in named if not (ROOT / "pipelines" / name / "__init__.py").exists()] == []


@pytest.mark.processes
def test_the_two_commands_set_up_and_start_the_job_and_the_tests(tmp_path: Path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "setup").mkdir()
    for name, says in (("setup/setup.sh", "set up"), (".venv/bin/python", "$*")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{says}"\n', encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    demo, test = block("Two commands", 0).commands
    started = run(demo, tmp_path).stdout.splitlines()
    assert started == ["set up", f"jobs/pipeline.py --recipe {RECIPE.relative_to(ROOT)} "
                                 f"--platform {PLATFORM.relative_to(ROOT)}"]
    set_up, of_server, tested = run(test, tmp_path).stdout.splitlines()
    assert (set_up, of_server) == ("set up", "setup/s3_environment.py")
    assert tested.startswith("-m pytest") and "-m not" not in tested


@pytest.mark.processes
def test_the_query_of_the_metrics_runs_in_any_spark(spark: SparkSession, finished: Finished,
                                                    capsys: pytest.CaptureFixture[str]):
    lake = f"{finished.place}/lake/"  # the session was started in another folder
    exec(block("Five minutes", 1).text.replace("lake/", lake), {"spark": spark})
    by_rank, losses = capsys.readouterr().out.strip().split("\n\n")
    assert "avg(communication_s)" in by_rank and len(by_rank.splitlines()) == 4 + 2
    assert len(losses.splitlines()) == 4 + 4


@pytest.mark.processes
def test_predictions_are_a_table_and_a_function_in_a_notebook(spark: SparkSession, finished: Finished,
                                                               monkeypatch: pytest.MonkeyPatch,
                                                               capsys: pytest.CaptureFixture[str]):
    scores, written = (pq.read_table(finished.place / folder).to_pylist() for folder in ("scores", "written"))
    assert [row["bytes"] for row in scores] == [5, 6] and all(row["continuation"] for row in written)
    monkeypatch.chdir(finished.place)
    code = block("Predictions", 1).text.replace("<run_id>", finished.run_id)
    exec(code, {"texts": spark.read.parquet(str(finished.place / "texts.parquet"))})
    first, second = capsys.readouterr().out.strip().split("\n\n")
    assert str(scores[0]["bits_per_byte"])[:6] in first and "continuation" in second


@pytest.mark.processes
def test_the_trained_model_is_used_without_spark(finished: Finished, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(finished.place)
    names: dict[str, Any] = {"tokens_BT": torch.zeros((2, 8), dtype=torch.int64)}
    exec(block("Five minutes", 2).text.replace("<run_id>", finished.run_id), names)
    assert names["logits_BTV"].shape[:2] == (2, 8)
    assert names["language_model"].tokenizer.decode(names["ids"]) == "import os"
    assert "def " in capsys.readouterr().out


@pytest.mark.processes
def test_the_trained_model_is_used_with_transformers(finished: Finished, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(finished.place)
    names: dict[str, Any] = {}
    exec(block("Five minutes", 3).text.replace("<run_id>", finished.run_id), names)
    assert type(names["model"]).__name__ in ("GPT2LMHeadModel", "Qwen3ForCausalLM")
    assert capsys.readouterr().out.startswith("def ")


@pytest.mark.processes
def test_the_trained_model_becomes_one_file(finished: Finished):
    (command,) = [span for span in SPANS if span.startswith("sparkring models export")]
    done = run(f".venv/bin/{command}".replace("RUN", finished.run_id), finished.place)
    assert done.returncode == 0, done.stderr
    assert "blk.0.attn_q_norm.weight" in {tensor.name for tensor in GGUFReader(finished.place / "model.gguf").tensors}


@pytest.mark.processes
def test_the_ranks_run_alone_and_leave_the_lake_as_it_is(finished: Finished):
    (command,) = block("The ranks alone", 0).commands
    (version,) = (finished.place / "lake/datasets/gpt-demo").glob("[!.]*")
    before = {path: path.stat().st_mtime for path in (finished.place / "lake").rglob("*")}
    done = run(" ".join([command.replace("<version>", version.name), *map(shlex.quote, (*SMALL, "train.steps=3"))]),
               finished.place)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert len(list(Path(found["logs and records"]).glob("*.log"))) == 2
    assert (Path(found["models"]) / "best/model.safetensors").exists()
    shutil.rmtree(Path(found["models"]).parents[1])
    assert {path: path.stat().st_mtime for path in (finished.place / "lake").rglob("*")} == before


def test_the_yaml_is_accepted():
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    of_language = Recipe.model_validate(recipe | yaml.safe_load(block("Models of language", 0).text))
    assert (of_language.model.kind, of_language.optimizer.kind, of_language.schedule.kind) == ("qwen3", "muon", "wsd")
    further = Recipe.model_validate(recipe | yaml.safe_load(block("Models of language", 1).text))
    assert (further.model.kind, further.model.origin) == ("from", "models/Qwen3-0.6B-Base")
    inputs = yaml.safe_load(block("Your own data", 0).text)["prepare"]
    accepted = Recipe.model_validate(recipe | {"prepare": recipe["prepare"] | inputs}).prepare
    assert (len(accepted.inputs), accepted.tokenizer.kind) == (4, "bpe")
    layouts = [Platform.model_validate(yaml.safe_load(line)).layout
               for line in block("Layouts: replicas and segments", 0).text.splitlines()]
    assert [(layout.num_replicas, layout.num_segments) for layout in layouts[:-1]] == [(4, 1), (1, 4), (2, 2)]
    assert layouts[-1].automatic


def _accepts(load: Callable[[list[str]], object], overrides: list[str]) -> bool:
    try:
        load(overrides)
    except ConfigError:
        return False
    return True


# what the settings of an override may be for
RECIPES = sorted(RECIPE.parent.glob("*.yaml"))
ACCEPTING = [partial(_accepts, load) for load in (
    partial(load_predict, PLATFORM), *(partial(load_config, recipe, PLATFORM) for recipe in RECIPES))]


@pytest.mark.processes
def test_the_overrides_and_the_single_stages_are_accepted(finished: Finished, monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture[str]):
    overrides, *others = [shlex.split(span)[1::2] for span in SPANS if span.startswith("--set ") and "=" in span]
    changed = load_config(RECIPE, PLATFORM, overrides)
    assert (changed.recipe.train.steps, changed.platform.layout.num_replicas) == (300, 1)
    refused = [span for span in others if not any(accepts(span) for accepts in ACCEPTING)]
    assert others and refused == []
    monkeypatch.chdir(finished.place)
    files = ["--recipe", "conf/recipes/gpt-demo.yaml", "--platform", "conf/platforms/local.yaml"]
    small = [word for override in SMALL for word in ("--set", override)]
    stages = [Path(span).stem for span in SPANS if re.fullmatch(r"jobs/\w+\.py", span)]
    of_a_model = {"evaluate": files[2:], "predict": [*files[2:], "--run-id", finished.run_id, "--input", "texts",
                                                     "--output", "other-scores"]}
    assert stages == ["prepare", "train", "evaluate", "predict", "report"]
    for stage in stages:
        assert main([stage, *of_a_model.get(stage, [*files, *small]), "--dry-run"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert "`--json`" in README and main(["report", *files, *small, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_id"] == finished.run_id


@pytest.mark.processes
def test_the_doctor_needs_nothing(finished: Finished):
    assert "sparkring doctor" in SPANS
    found = run(".venv/bin/sparkring doctor", finished.place)
    assert found.returncode == 0 and "no --platform given; assumed: " in found.stderr and "FAIL" not in found.stderr


def test_every_make_target_exists():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = [span.split()[1] for span in SPANS if span.startswith("make ")]
    assert "bench" in named and set(named) <= set(targets)


@pytest.mark.processes
def test_every_path_exists(finished: Finished):
    """Of the repository or of what a run leaves; a bare file name is one beside the path before it."""
    missing, folder = [], ROOT
    for span in SPANS:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]*)+|" + FILE_NAME, span):
            continue
        places = [ROOT / span, folder / span, finished.place / span, *finished.place.glob(f"lake/*/*/**/{span}")]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            missing.append(span)
        elif "/" in span:
            folder = found if found.is_dir() else found.parent
    assert missing == []


def sections_of(model: type[BaseModel]) -> Iterator[str]:
    """``section.key`` for every setting of a recipe or a platform."""
    for section, field in model.model_fields.items():
        yield section
        kinds = SECTION_KINDS[section].values() if section in SECTION_KINDS else [field.annotation, *get_args(field.annotation)]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from (f"{section}.{key}" for key in kind.model_fields)


def test_every_setting_and_table_exists():
    settings = {*sections_of(Recipe), *sections_of(Platform), *sections_of(PredictFile)}
    dotted = {span.partition(":")[0] for span in SPANS if re.fullmatch(r"[a-z]+\.[a-z_]+(: .*)?", span)}
    named = {span for span in dotted if not re.fullmatch(FILE_NAME, span)}
    assert {"prepare.inputs", "storage.root"} <= named and named <= settings
    tables = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert tables and set(tables) == set(TABLE_DDL)
