"""A standalone Spark cluster on two hosts that share no folder, a lake on a store that all reach, and a driver's own folder.

Runs on: the machine of the tests, as root.
Takes:   a network (``network.py``), a running S3 server on its store's address, the wheel.
Gives:   ``World``: ``workers`` starts the hosts, ``submit`` runs a job as README's command does, ``local`` the same without a
         cluster; tables, objects and weights of a lake.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import s3fs
from safetensors.numpy import load

from tests.conftest import ROOT
from tests.jobs.test_standalone import SPARK_HOME, not_activated
from tests.support.s3_server import S3Server
from tests.support.tiny_recipe import tiny_recipe
from tests.world.network import Network, RunningHost, until

SLOTS = 2
START_TIMEOUT_S = 120.0
JOB_TIMEOUT_S = 280.0
TEXTS = 40


@dataclass(frozen=True)
class Ended:
    """A job that has ended."""

    code: int
    said: str  # without Spark's own news

    def well(self) -> Ended:
        assert self.code == 0, self.said[-8000:]
        return self


class World:
    """What the driver has, and how it reaches the rest."""

    def __init__(self, folder: Path, net: Network, server: S3Server, master: str, wheel: Path) -> None:
        self.folder, self.net, self.server, self.master, self.wheel = folder, net, server, master, wheel
        for name in ("jobs", "conf"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / "tmp").mkdir()
        self.bucket = server.new_bucket()
        self.store = s3fs.S3FileSystem(**server.options, key="testing", secret="testing", use_listings_cache=False,
                                       skip_instance_cache=True)
        (folder / "texts").mkdir()
        for i in range(TEXTS):
            text = f"the text number {i} says that {i * 7} is a number, and {i * 13} another. " * 10
            (folder / "texts" / f"{i}.txt").write_text(text)
            self.store.pipe_file(f"{self.bucket}/texts/{i}.txt", text.encode())

    @contextmanager
    def workers(self, *, without_credentials: tuple[str, ...] = ()) -> Iterator[dict[str, RunningHost]]:
        """A Spark worker on each host, by its name; credentials are what their administrator has given to each."""
        with ExitStack() as stack:
            running = {}
            for host in self.net.hosts:
                log = self.folder / f"{host.name}.log"
                given = {} if host.name in without_credentials else self.server.environment
                environment = not_activated(SPARK_HOME=str(SPARK_HOME), SPARK_NO_DAEMONIZE="1", SPARK_LOCAL_IP=host.address,
                                            TMPDIR="/tmp", **given)
                command = [str(SPARK_HOME / "bin/spark-class"), "org.apache.spark.deploy.worker.Worker", "--host", host.address,
                           "--cores", str(SLOTS), "--memory", "1g", "--webui-port", "0", "--work-dir", "/tmp/work", self.master]
                running[host.name] = stack.enter_context(host.start(command, environment, log))
            for host in self.net.hosts:
                log = self.folder / f"{host.name}.log"
                until(lambda log=log: "Successfully registered with master" in log.read_text(errors="replace"),
                      START_TIMEOUT_S, f"a worker on {host.name}; {log}")
            yield running

    def recipe(self, inputs: str, steps: int, every: int) -> Path:
        path = self.folder / f"recipe-{inputs.partition(':')[0]}-{steps}.yaml"
        path.write_text(tiny_recipe(inputs, steps=steps, evaluate_every=every, layers=4))
        return path

    def command(self, job: str, lake: str, *options: str) -> list[str]:
        """README's, with what is of this world."""
        settings = {"storage.root": self.url(lake), "storage.options": json.dumps(self.server.options),
                    "spark.driver_host": self.net.driver_address, "spark.conf.spark.executor.memory": "512m",
                    "layout.micro_batch_samples": 2}
        return [f"{sys.prefix}/bin/spark-submit", "--master", self.master, "--py-files", str(self.wheel), f"jobs/{job}.py",
                "--platform", "conf/platforms/standalone.yaml",
                *(word for name, value in settings.items() for word in ("--set", f"{name}={value}")), *options]

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def environment(self) -> dict[str, str]:
        return not_activated(**{**self.server.environment, "SPARK_LOCAL_IP": self.net.driver_address,
                                "TMPDIR": str(self.folder / "tmp")})

    def submit(self, job: str, lake: str, *options: str) -> Ended:
        process = self.start(self.command(job, lake, *options))
        try:
            said, _ = process.communicate(timeout=JOB_TIMEOUT_S)
        finally:
            kill_all(process.pid)
            process.wait()
        return Ended(process.returncode, "\n".join(line for line in said.splitlines() if " INFO " not in line))

    def local(self, recipe: Path, *overrides: str) -> None:
        """The same recipe on one rank of this machine, its lake in the folder ``local``."""
        words = [sys.executable, str(ROOT / "jobs/pipeline.py"), "--recipe", str(recipe),
                 "--platform", "conf/platforms/local.yaml", *(word for each in (
                     "storage.root=local", "spark.master=local[2]", "layout.num_replicas=1", "layout.micro_batch_samples=2",
                     *overrides) for word in ("--set", each))]
        done = subprocess.run(words, cwd=self.folder, env={**os.environ, "TMPDIR": str(self.folder / "tmp")}, capture_output=True,
                              text=True, timeout=JOB_TIMEOUT_S)
        assert done.returncode == 0, done.stdout + done.stderr

    def url(self, lake: str) -> str:
        return f"s3://{self.bucket}/{lake}"

    def objects(self, lake: str) -> list[str]:
        return sorted(key.removeprefix(f"{self.bucket}/{lake}/") for key in self.store.find(f"{self.bucket}/{lake}"))

    def rows(self, lake: str, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(f"{self.bucket}/{lake}/tables/{table}", filesystem=self.store).to_pylist()
        return rows

    def run_id(self, lake: str) -> str:
        (run_id,) = {key.split("/")[1] for key in self.objects(lake) if key.startswith("runs/")}
        return run_id

    def weights(self, lake: str) -> Mapping[str, np.ndarray]:
        return load(self.store.cat_file(f"{self.bucket}/{lake}/models/{self.run_id(lake)}/last/model.safetensors"))

    def local_weights(self) -> Mapping[str, np.ndarray]:
        (path,) = (self.folder / "local/models").glob("*/last/model.safetensors")
        return load(path.read_bytes())


def kill_all(pid: int) -> None:
    """A process and all that it started, with a signal that nothing can catch."""
    try:
        process = psutil.Process(pid)
        known = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in known:
        if each.is_running():
            each.kill()


def distance(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> float:
    """Of all weights, relative to their norm."""
    assert ours.keys() == theirs.keys()
    apart = sum(float(np.square(ours[name].astype(float) - theirs[name]).sum()) for name in ours)
    return float(np.sqrt(apart / sum(float(np.square(each.astype(float)).sum()) for each in ours.values())))
