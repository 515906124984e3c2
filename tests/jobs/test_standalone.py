"""A real standalone cluster: a master and two workers of the pip-installed Spark, one rank on each slot."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pyspark
import pytest
import yaml

from tests.conftest import ROOT
from tests.support.readme import block
from tests.test_readme import SMALL

pytestmark = pytest.mark.processes

FROM_THE_WHEEL = """
import pipelines
if ".whl" not in pipelines.__file__:
    raise ImportError(f"pipelines is from {pipelines.__file__}")
"""
SPARK_HOME = Path(pyspark.__file__).parent
LOOPBACK = "127.0.0.1"


def not_activated(**more):
    """This environment without what would lead to the checkout's Python or packages."""
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if not folder.startswith(sys.prefix)]
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "SPARK_", "PYSPARK_", "VIRTUAL_ENV"))}
    return {**kept, "PATH": os.pathsep.join(path), "SPARK_LOCAL_IP": LOOPBACK, **more}


def start_daemon(folder, name, *arguments):
    log = folder / f"{name}.log"
    env = not_activated(SPARK_HOME=str(SPARK_HOME), SPARK_NO_DAEMONIZE="1")
    process = subprocess.Popen([str(SPARK_HOME / "bin" / "spark-class"), *arguments], env=env, cwd=folder,
                               stdout=log.open("wb"), stderr=subprocess.STDOUT)
    return process, log


def wait_for(log, pattern, bound_s=60):
    until = time.monotonic() + bound_s
    while not re.search(pattern, log.read_text(errors="replace")):
        assert time.monotonic() < until, log.read_text(errors="replace")
        time.sleep(0.1)


def free_port():
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster(tmp_path):
    """URL of a master with two workers of one core each; all three ended afterwards."""
    port = free_port()
    master, log = start_daemon(tmp_path, "master", "org.apache.spark.deploy.master.Master", "--host", LOOPBACK,
                               "--port", str(port), "--webui-port", "0")
    processes = [master]
    try:
        wait_for(log, "I have been elected leader")
        for i in range(2):
            worker, worker_log = start_daemon(
                tmp_path, f"worker-{i}", "org.apache.spark.deploy.worker.Worker", "--host", LOOPBACK, "--cores", "1",
                "--memory", "1g", "--webui-port", "0", "--work-dir", str(tmp_path / f"work-{i}"), f"spark://{LOOPBACK}:{port}")
            processes.append(worker)
            wait_for(worker_log, "Successfully registered with master")
        yield f"spark://{LOOPBACK}:{port}"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


OWN_MODEL_OF_RANKS = """
import os, sys
from torch import nn
from pipelines.models.layered import LayeredModel

def build(vocabulary_size, sequence_length):
    if "HOROVOD_RANK" in os.environ and "/environment/bin/" not in sys.executable:
        raise ImportError(f"a rank runs in {sys.executable}")
    return LayeredModel([("table", nn.Embedding(vocabulary_size, 8)), ("logits", nn.Linear(8, vocabulary_size))])
"""


def test_executors_train_in_the_environment_that_they_are_sent(cluster, tmp_path):
    (tmp_path / "texts").mkdir()
    for i in range(30):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"text {i} of the cluster, once more {i * 3}. " * 8)
    (tmp_path / "my_models.py").write_text(OWN_MODEL_OF_RANKS)
    package, submit, to_yarn = block("On a cluster", 1).commands
    assert package == "make package"
    archive = tmp_path / "environment.tar.gz"
    subprocess.run([sys.executable, ROOT / "setup/package.py", archive], check=True, timeout=280, capture_output=True)
    conf = {"spark.executor.memory": "512m", "spark.submit.pyFiles": str(tmp_path / "my_models.py")}
    overrides = (*SMALL, f"storage.root={tmp_path}/lake", f"spark.conf={json.dumps(conf)}", "layout.num_replicas=2",
                 "model={factory: 'my_models:build'}")
    shutil.copytree(ROOT / "conf", tmp_path / "conf")

    def submitted(command):
        command = command.replace("dist/environment.tar.gz", str(archive)).replace("spark://HOST:7077", cluster)
        words = [word.replace(".venv", sys.prefix) for word in command.split()]  # whose path may have spaces
        done = subprocess.run([*words, *(word for each in overrides for word in ("--set", each))], cwd=tmp_path, timeout=280,
                              env=not_activated(PYTHONPATH=str(tmp_path)), capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert done.returncode == 0, "\n".join(line for line in said.splitlines() if " INFO " not in line)[-5000:]
        return said

    assert "2 ranks on" in submitted(submit)
    assert f"--archives '{archive}#environment'" in submitted(to_yarn)  # only shown


def test_readmes_command_trains_a_model_of_ones_own_from_the_wheel_and_others_use_it(cluster, tmp_path, wheel, python_without_us):
    """In a folder that is no clone, in an environment that is not active and in which the project is not installed."""
    place = tmp_path / "elsewhere"
    (place / "texts").mkdir(parents=True)
    for i in range(30):
        (place / "texts" / f"{i}.txt").write_text(f"text {i} of the cluster, once more {i * 3}. " * 8)
    shutil.copytree(ROOT / "jobs", place / "jobs")
    shutil.copytree(ROOT / "conf", place / "conf")
    (place / "dist").mkdir()
    shutil.copy(wheel, place / "dist")
    (place / ".venv").symlink_to(python_without_us.parents[1])
    own_model = block("Layouts: replicas and segments", 1).text
    in_recipe = yaml.safe_load(block("Layouts: replicas and segments", 2).text)["model"]
    (place / "my_models.py").write_text(f"{own_model}\n{FROM_THE_WHEEL}")
    alone = subprocess.run([".venv/bin/python", "jobs/pipeline.py"], cwd=place, env=not_activated(), capture_output=True,
                           text=True, timeout=60)
    assert "No module named 'pipelines'" in alone.stderr  # so what runs below is the wheel's

    _, submit = block("On a cluster", 0).commands
    submit = submit.replace("spark://HOST:7077", cluster).replace(".whl", ".whl,my_models.py")
    platform = ("storage.root=lake", "spark.conf.spark.executor.memory=512m")

    def submitted(command, *overrides):
        words = [*command.split(), *(word for each in (*platform, *overrides) for word in ("--set", each))]
        done = subprocess.run(words, cwd=place, env=not_activated(), capture_output=True, text=True, timeout=280)
        said = done.stdout + done.stderr  # spark-submit hands on the job's standard error as standard output
        assert done.returncode == 0, "\n".join(line for line in said.splitlines() if " INFO " not in line)[-5000:]
        return said

    said = submitted(submit, *SMALL, f"model={json.dumps(in_recipe | {'width': 16, 'depth': 2})}", "layout.num_replicas=2")
    assert "2 ranks on" in said
    rows = pq.read_table(place / "lake/tables/rank_steps").to_pylist()
    assert sorted((row["step"], row["rank"]) for row in rows) == [(s, r) for s in range(1, 5) for r in (0, 1)]
    (run,) = (place / "lake/runs").iterdir()
    assert "<html" in (run / "report.html").read_text()
    load = "import sys; from pipelines.models.exported_model import load_model; load_model(sys.argv[1], factory=sys.argv[2])"
    arguments = [f"lake/models/{run.name}/best", in_recipe["factory"]]
    loaded = subprocess.run([".venv/bin/python", "-c", load, *arguments], cwd=place, text=True,
                            env=not_activated(PYTHONPATH=str(wheel)), capture_output=True, timeout=60)
    assert loaded.returncode == 0, loaded.stderr

    submit, recipe = submit.replace(" --recipe conf/recipes/gpt-demo.yaml", ""), "jobs/pipeline.py"
    said = submitted(submit.replace(recipe, "jobs/evaluate.py"), "layout.num_replicas=1", "layout.num_segments=2",
                     "layout.micro_batch_samples=2")
    assert f"run {run.name}: best model" in said
    rows = pq.read_table(place / "lake/tables/evaluations").to_pylist()
    evaluated, recorded = ([row["loss"] for row in rows if row["model"] == model] for model in ("best", None))
    assert len(evaluated) == 1 and min(recorded) == pytest.approx(evaluated[0], rel=1e-5)

    ask = f"{submit.replace(recipe, 'jobs/predict.py')} --run-id {run.name} --input texts --output scores"
    submitted(ask, f"predict.factory={in_recipe['factory']}")
    assert pq.read_table(place / "scores")["reason"].to_pylist() == [None] * 30
