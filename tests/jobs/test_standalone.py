"""A real standalone cluster: a master and two workers of the pip-installed Spark, one rank on each slot."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pyspark
import pytest

from tests.jobs.test_jobs import PLATFORM, RECIPE, ROOT, command

SPARK_HOME = Path(pyspark.__file__).parent
LOOPBACK = "127.0.0.1"


def start_daemon(folder, name, *arguments):
    log = folder / f"{name}.log"
    env = {**os.environ, "SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": LOOPBACK, "SPARK_NO_DAEMONIZE": "1"}
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


def test_spark_submit_trains_on_a_standalone_cluster_of_two_workers(cluster, tmp_path):
    (tmp_path / "texts").mkdir()
    for i in range(30):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"text {i} of the cluster, once more {i * 3}. " * 8)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("PLACE", f"'{tmp_path / 'texts'}'"))
    platform = PLATFORM.replace('"local[3]"', "null").replace("conf: {", "conf: {spark.executor.memory: 512m, ")
    (tmp_path / "platform.yaml").write_text(platform)
    submit = [str(SPARK_HOME / "bin" / "spark-submit"), "--master", cluster, *command("pipeline", tmp_path)[1:]]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": LOOPBACK,
           "PYSPARK_PYTHON": command("pipeline", tmp_path)[0], "PYSPARK_DRIVER_PYTHON": command("pipeline", tmp_path)[0]}
    done = subprocess.run(submit, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280)
    said = done.stdout + done.stderr  # spark-submit hands on the job's standard error as standard output
    assert done.returncode == 0, said[-5000:]
    assert "2 ranks on" in said
    rows = pq.read_table(tmp_path / "lake/tables/rank_steps").to_pylist()
    assert sorted((row["step"], row["rank"]) for row in rows) == [(s, r) for s in range(1, 13) for r in (0, 1)]
