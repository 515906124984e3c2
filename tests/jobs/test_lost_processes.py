"""What a run says when a process under it is killed: the driver's Java, the driver itself, an executor of a cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pyarrow.parquet as pq
import pytest

from pipelines.errors import RankFailedError, ResourceError
from pipelines.lake.paths import Lake
from tests.jobs.test_jobs import ROOT
from tests.jobs.test_standalone import cluster  # noqa: F401 - a fixture
from tests.support.example_data import example_config, publish_example

pytestmark = pytest.mark.processes

DRIVER = """
import sys
from pathlib import Path
from pipelines.config import Config
from pipelines.console import TrainingProgress
from pipelines.errors import SparkringError
from pipelines.launch.planning import plan_train
from pipelines.launch.train import train
from pipelines.spark.session import spark_session
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
config, lake = Config.from_json(Path("config.json").read_text()), Lake.at("lake")
try:
    with spark_session(config.platform, "lost") as spark:
        plan = plan_train(config, lake, Manifest.load(lake.store.below(lake.dataset("example", "v1"))), "r")
        train(spark, plan, "the command", TrainingProgress())
except SparkringError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def lake(tmp_path):
    lake = Lake.at(tmp_path / "lake")
    publish_example(lake)
    return lake


@contextmanager
def driver(lake, master, attempt=0):
    """A driver whose two ranks have made a few steps, and all its processes; none of them is left at the end."""
    folder = lake.root.parent
    config = example_config(train__steps=100_000, train__evaluate_every_steps=100_000, spark__master=master, spark__conf={
        "spark.executor.memory": "512m", "spark.executorEnv.PYTHONPATH": str(ROOT)})
    (folder / "config.json").write_text(config.to_json())
    process = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    known: list[psutil.Process] = [psutil.Process(process.pid)]
    try:
        until = time.monotonic() + 120
        records = [lake.run("r").live(attempt).record(rank) for rank in (0, 1)]
        while not all(record.exists() and record.read_text().count('"kind": "step"') > 2 for record in records):
            assert time.monotonic() < until, "no step was made"
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        ranks = [psutil.Process(json.loads(record.read_text().splitlines()[0])["pid"]) for record in records]
        known += [*psutil.Process(process.pid).children(recursive=True), *ranks]
        yield process, ranks
        _, alive = psutil.wait_procs(known, timeout=20)
        assert not alive
    finally:
        for each in known:
            if each.is_running():
                each.kill()
        process.wait()


def java_above(process):
    """The Java process that a rank lives under."""
    return next(parent for parent in process.parents() if parent.name() == "java")


def state(lake, attempt=0):
    return json.loads(lake.store.read(lake.run("r").attempt_state(attempt)))


def test_a_killed_java_process_is_told_as_that_and_a_killed_driver_leaves_a_lost_run(lake):
    with driver(lake, "local[2]") as (process, ranks):
        java_above(ranks[0]).kill()
        _, said = process.communicate(timeout=60)
        assert process.returncode == ResourceError.exit_code, said
        assert re.search(r"^error: Spark: the driver's Java process was killed by SIGKILL \(often: out of memory\), and the "
                         r"ranks ended with it after step \d+; ", said, re.MULTILINE), said
        assert "Traceback" not in said
        assert (state(lake)["status"], len(state(lake)["placement"])) == ("failed", 2)
    with driver(lake, "local[2]", attempt=1) as (process, _):
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert state(lake, 1)["status"] == "running"  # what it wrote last
    folder = lake.root.parent
    (folder / "platform.yaml").write_text("spark: {master: 'local[2]'}\n")
    command = [sys.executable, str(ROOT / "jobs/report.py"), "--platform", "platform.yaml", "--run-id", "r", "--json"]
    shown = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                           timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["status"] == "lost"
    assert pq.read_table(lake.root / lake.table("runs"), columns=["status"]).to_pylist() == [{"status": "lost"}]
    assert "The run was lost after step" in lake.store.read(lake.run("r").report).decode()


def test_a_lost_executor_of_a_cluster_is_told_with_sparks_reason_and_its_rank(cluster, lake):  # noqa: F811
    with driver(lake, cluster) as (process, ranks):
        java_above(ranks[1]).kill()
        _, said = process.communicate(timeout=60)
    assert process.returncode == RankFailedError.exit_code, said
    assert re.search(r"^error: rank 1 on \S+: (lost with its Spark executor after step \d+: ExecutorLostFailure .* Reason: |"
                     r"gone after step \d+ without a word, Spark task and all)", said, re.MULTILINE), said
    assert state(lake)["status"] == "failed"
