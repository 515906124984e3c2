"""A whole project whose lake is on S3, with an S3 server that fails every tenth request: the jobs as a user starts them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.config.platform import Storage
from tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.support.readme import block
from tests.support.s3_server import S3Server
from tests.support.tiny_recipe import tiny_recipe

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
SEED = 4711
FAULTS = {Fault.SLOW_DOWN: 0.03, Fault.CLOSED: 0.02, Fault.CUT: 0.03, Fault.LOST_ANSWER: 0.02}
PLATFORM = """
spark: {master: "local[3]", conf: {spark.sql.shuffle.partitions: 2}}
layout: {num_replicas: 2, micro_batch_samples: 4}
"""


class Project:
    """A folder with recipe and platform, and where its lake is."""

    def __init__(self, folder: Path, proxy: FaultyProxy, server: S3Server) -> None:
        self.folder, self.bucket = folder, server.new_bucket()
        self.system = fsspec.filesystem("s3", **server.options, use_listings_cache=False, skip_instance_cache=True)
        self.environment = {**os.environ, **server.environment, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir()
        texts = folder / "texts"
        texts.mkdir()
        for i in range(40):
            (texts / f"text {i}.txt").write_text(f"the text number {i} says that {i * 7} is a number. " * 10)
        (texts / "broken.txt").write_bytes(b"\xff\xfe not UTF-8")
        (folder / "recipe.yaml").write_text(tiny_recipe(str(texts)))
        (folder / "platform.yaml").write_text(PLATFORM)
        self.on_s3 = ["--set", f"storage.root=s3://{self.bucket}/lake", "--set", f"storage.options={json.dumps(proxy.options)}"]

    def job(self, name: str, *options: str, recipe: bool = True) -> str:
        command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *(["--recipe", "recipe.yaml"] if recipe else []),
                   "--platform", "platform.yaml", *options]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def objects(self) -> list[str]:
        return sorted(key.removeprefix(f"{self.bucket}/lake/") for key in self.system.find(f"{self.bucket}/lake"))

    def read(self, key: str) -> bytes:
        content: bytes = self.system.cat_file(f"{self.bucket}/lake/{key}")
        return content

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(f"{self.bucket}/lake/tables/{table}", filesystem=self.system).to_pylist()
        return rows


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patch, faulty_proxy(s3_server.endpoint_url, FAULTS, SEED) as proxy:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        project = Project(tmp_path_factory.mktemp("project"), proxy, s3_server)
        project.job("pipeline", *project.on_s3)
        assert sum(proxy.faults().values()) > 5
        yield project


@pytest.fixture(scope="module")
def run_id(project: Project) -> str:
    (run_id,) = {key.split("/")[1] for key in project.objects() if key.startswith("runs/")}
    return run_id


def test_the_model_is_byte_for_byte_the_one_of_a_lake_in_a_folder(project: Project, run_id: str) -> None:
    project.job("pipeline")
    for which in ("best", "last"):
        ours = (project.folder / "lake/models" / run_id / which / "model.safetensors").read_bytes()
        assert project.read(f"models/{run_id}/{which}/model.safetensors") == ours


def test_the_tables_hold_each_step_and_rank_once_and_any_reader_reads_them_by_path(project: Project, run_id: str) -> None:
    places = sorted((row["step"], row["rank"]) for row in project.rows("rank_steps"))
    assert places == [(step, rank) for step in range(1, 13) for rank in (0, 1)]
    assert [row["step"] for row in project.rows("steps")] == [*range(1, 13)]
    (run,), (dataset,), (rejected,) = (project.rows(table) for table in ("runs", "datasets", "rejected"))
    assert (run["run_id"], run["status"], dataset["path"]) == (run_id, "completed", f"s3://{project.bucket}/lake/datasets/tiny/"
                                                               f"{run['dataset_version']}")
    assert rejected["source"].endswith("broken.txt")


def test_nothing_is_left_in_the_lake_beside_what_is_published(project: Project) -> None:
    manifest = next(json.loads(project.read(key)) for key in project.objects() if key.endswith("manifest.json"))
    shards = {shard["path"] for shards in manifest["splits"].values() for shard in shards}
    version = f"datasets/tiny/{manifest['version']}/"
    assert {key.removeprefix(version) for key in project.objects() if key.startswith("datasets/")} == {
        "manifest.json", "tokenizer.json", *shards}
    assert not [key for key in project.objects() if ".probe" in key]
    assert not [path for path in (project.folder / "tmp").iterdir() if not path.name.startswith(("sparkring-", "torchinductor_"))]


def test_the_same_command_again_does_nothing(project: Project) -> None:
    def published() -> list[str]:
        return [key for key in project.objects() if not key.startswith("claims/")]  # whose numbers go up

    before = published()
    said = project.job("pipeline", *project.on_s3)
    assert "is complete, nothing to do" in said
    assert published() == before


def test_a_machine_that_has_nothing_of_the_run_reports_evaluates_and_predicts(project: Project, run_id: str) -> None:
    shutil.rmtree(project.folder / "tmp")  # copies and records of the machine that trained
    (project.folder / "tmp").mkdir()
    report = project.job("report", *project.on_s3, recipe=False)
    assert "what it writes:" in report and f"s3://{project.bucket}/lake/runs/{run_id}/report.html" in report
    project.job("evaluate", *project.on_s3, "--split", "train")
    assert [row["split"] for row in project.rows("evaluations") if row["model"] == "best"] == ["train"]
    (project.folder / "asked").mkdir()
    (project.folder / "asked/a.txt").write_text("the text number")
    project.job("predict", *project.on_s3, "--run-id", run_id, "--input", "asked", "--output", "answers",
                "--set", "predict.generate=5", recipe=False)
    (row,) = pq.read_table(project.folder / "answers").to_pylist()
    assert row["reason"] is None


def test_the_place_of_the_lake_is_tried_and_nothing_is_left_over_there(project: Project) -> None:
    settings = yaml.safe_load(block("A lake at a URL", 0).text)["storage"]
    assert Storage.model_validate(settings).address.startswith("{")
    for command in block("A lake at a URL", 1).commands:
        program, *options = shlex.split(command.replace("s3://bucket/prefix", f"s3://{project.bucket}/lake"))
        assert program == ".venv/bin/sparkring"
        options = ["platform.yaml" if option == "conf/platforms/local.yaml" else option for option in options]
        at = [] if "--storage" in options else project.on_s3[:2]
        command_line = [str(Path(sys.executable).with_name("sparkring")), *options, *at, *project.on_s3[2:]]
        done = subprocess.run(command_line, cwd=project.folder, env=project.environment, capture_output=True, text=True,
                              timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout + done.stderr
        assert "one is told that it did" in said or f"nothing is left over in s3://{project.bucket}/lake" in said
