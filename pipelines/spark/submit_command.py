"""The ``spark-submit`` of a job: what a cluster's manager has to be asked for so that a gang of ranks fits in.

Runs on: driver's machine, before there is a driver (pure).
Takes:   where it is submitted to, the job with its arguments, the platform, what memory a rank needs.
Gives:   ``submit_command``: the words of the command; ``command_lines``: the same for people.

One executor holds ``ranks_per_executor`` ranks, each on a slot of ``threads_per_rank`` cores. On YARN and Kubernetes a rank lives
in what its container has beside the JVM's heap, so the overhead is what the ranks need; a standalone worker bounds nobody.
Whatever the platform's ``spark.conf`` says goes before what is computed here. Secrets of it stay out of the command: the job
sets them.

Source: Spark's pages on submitting applications, on YARN, on Kubernetes, and on Python package management (archives).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipelines.config import Platform
from pipelines.config.checks import UNFIT_SETTINGS, unfit_settings
from pipelines.config.secrets import masked_settings
from pipelines.errors import ConfigError, SparkringError
from pipelines.spark.slots import Cluster

MIB = 1024**2
SPARE_SHARE, SPARE_BYTES = 1.1, 384 * MIB  # of an executor's overhead, beside what was estimated for its ranks
ARCHIVES = (".tar.gz", ".tgz", ".zip")
ENVIRONMENT = "environment"  # the folder that an archive becomes beside an executor
UPLOADED = ("--recipe", "--platform", "--dataset")  # arguments of jobs that name files of this machine


class Manager(StrEnum):
    """Of a cluster's resources."""

    standalone = "standalone"
    yarn = "yarn"
    k8s = "k8s"


MASTERS = {Manager.standalone: "spark://HOST:7077", Manager.k8s: "k8s://https://HOST:6443"}  # as those of YARN are not given
NUMBER_OF = {Manager.standalone: "spark.cores.max", Manager.yarn: "spark.executor.instances",
             Manager.k8s: "spark.executor.instances"}  # setting: how much there is to be
IMAGE, UPLOADS = "spark.kubernetes.container.image", "spark.kubernetes.file.upload.path"
IMAGES_PYTHON, IMAGES_JOBS = "/opt/sparkring/bin/python", "local:///app/jobs"  # see the Dockerfile


class DeployMode(StrEnum):
    """Where the driver runs: on this machine, or in the cluster."""

    client = "client"
    cluster = "cluster"


@dataclass(frozen=True)
class Wish:
    """What is asked of the cluster."""

    manager: Manager
    master: str | None = None  # None: the platform's; that of YARN is always yarn
    deploy_mode: DeployMode = DeployMode.client
    # what executors get: a packed environment, or a wheel; on Kubernetes the image; None: they have all that is needed
    package: str | None = None
    ranks_per_executor: int = 1

    @property
    def packed(self) -> bool:
        """Whether executors run in an environment that they are sent."""
        return self.package is not None and self.package.endswith(ARCHIVES) and self.manager is not Manager.k8s


def submit_command(wish: Wish, job: Path, arguments: Sequence[str], platform: Platform, *, name: str, rank_bytes: int,
                   own_python: str) -> list[str]:
    """
    Args:
        job: one of ``jobs/``. arguments: the job's own. name: of the application. rank_bytes: what one rank needs beside
            a JVM. own_python: this machine's interpreter, for a driver that runs here.
    Raises:
        ConfigError: what the manager cannot do, or lacks; all faults together.
    """
    if faults := _faults(wish, platform):
        raise ConfigError(faults)
    conf = _settings(wish, platform, rank_bytes, own_python)
    command = ["--master", "yarn" if wish.manager is Manager.yarn else str(wish.master or platform.spark.master),
               "--deploy-mode", str(wish.deploy_mode), "--name", name]
    if wish.package is not None and wish.manager is not Manager.k8s:
        command += ["--archives", f"{wish.package}#{ENVIRONMENT}"] if wish.packed else ["--py-files", wish.package]
    if wish.deploy_mode is DeployMode.cluster:
        arguments, files = _uploaded(arguments)
        command += ["--files", ",".join(files)] if files else []
    for key, value in conf.items():
        command += ["--conf", f"{key}={value}"]
    in_image = wish.manager is Manager.k8s and wish.deploy_mode is DeployMode.cluster
    return [*command, f"{IMAGES_JOBS}/{job.name}" if in_image else str(job), *arguments, "--set", "spark.master=null"]


def command_lines(command: Sequence[str]) -> str:
    """For a shell: each option with its value on a line of its own."""
    lines, rest = [shlex.quote(command[0])], list(command[1:])
    while rest:
        count = 2 if rest[0].startswith("--") and len(rest) > 1 and not rest[1].startswith("--") else 1
        lines.append(shlex.join(rest[:count]))
        del rest[:count]
    return " \\\n    ".join(lines)


def _faults(wish: Wish, platform: Platform) -> list[SparkringError]:
    faults = []
    master, example = wish.master or platform.spark.master or "", MASTERS.get(wish.manager)
    if example is not None and not master.startswith(example.partition("//")[0]):
        faults.append(SparkringError("--master", f"{master or 'none'} is none of {wish.manager}", f"give {example}"))
    if wish.manager is Manager.standalone and wish.deploy_mode is DeployMode.cluster:
        faults.append(SparkringError("--deploy-mode", "cluster: a standalone cluster takes no driver in Python",
                                     "use client, on a machine that the workers reach"))
    if wish.manager is Manager.k8s:
        if wish.package is None and IMAGE not in platform.spark.conf:
            faults.append(SparkringError("--package", "is missing: pods are made of an image", "give its name (the Dockerfile "
                                         f"makes one), or set {IMAGE} under spark.conf"))
        if wish.deploy_mode is DeployMode.cluster and UPLOADS not in platform.spark.conf:
            faults.append(SparkringError(f"spark.conf.{UPLOADS}", "is missing: recipe and platform travel by it", "set it to a "
                                         "place that this machine can write to and pods can read, such as s3a://BUCKET/uploads"))
    elif wish.package is not None and not wish.package.endswith((*ARCHIVES, ".whl")):
        faults.append(SparkringError("--package", f"{wish.package} is neither a packed environment nor a wheel",
                                     f"give what make package makes ({', '.join(ARCHIVES)}), or a .whl"))
    if platform.layout.automatic:
        if NUMBER_OF[wish.manager] not in platform.spark.conf:
            faults.append(SparkringError(f"spark.conf.{NUMBER_OF[wish.manager]}", "is missing: layout auto chooses from the "
                                         "slots that there are", "say how many there are to be"))
    elif platform.layout.num_ranks % wish.ranks_per_executor:
        faults.append(SparkringError("--ranks-per-executor", f"{wish.ranks_per_executor} does not divide "
                                     f"{platform.layout.num_ranks} ranks", "give a divisor"))
    slots = Cluster(None, {"spark.task.cpus": platform.layout.threads_per_rank, **platform.spark.conf}).slots_per_executor
    if slots not in (None, wish.ranks_per_executor):
        faults.append(SparkringError("spark.conf.spark.executor.cores", f"an executor has {slots} slots by it, and "
                                     f"--ranks-per-executor is {wish.ranks_per_executor}", "leave it out, or give as many"))
    return [*faults, *unfit_settings(platform)]


def _settings(wish: Wish, platform: Platform, rank_bytes: int, own_python: str) -> dict[str, str]:
    """Spark's, by name."""
    cores = platform.layout.threads_per_rank
    conf = {**dict.fromkeys(UNFIT_SETTINGS, "false"), "spark.task.cpus": str(cores),
            "spark.executor.cores": str(wish.ranks_per_executor * cores)}
    if not platform.layout.automatic:
        ranks = platform.layout.num_ranks
        conf[NUMBER_OF[wish.manager]] = str(ranks * cores if wish.manager is Manager.standalone
                                            else ranks // wish.ranks_per_executor)
    if wish.manager is not Manager.standalone:
        needed = SPARE_SHARE * rank_bytes * wish.ranks_per_executor + SPARE_BYTES
        conf["spark.executor.memoryOverhead"] = f"{math.ceil(needed / MIB)}m"
    given: Mapping[str, Any] = platform.spark.conf
    if wish.packed or wish.manager is Manager.k8s:
        conf["spark.pyspark.python"] = f"./{ENVIRONMENT}/bin/python" if wish.packed else IMAGES_PYTHON
        if wish.deploy_mode is DeployMode.client:
            conf["spark.pyspark.driver.python"] = own_python
    shown = masked_settings(given)
    conf |= {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in given.items()
             if shown[key] == value}
    if wish.manager is Manager.k8s and wish.package is not None:
        conf[IMAGE] = wish.package
    return conf


def _uploaded(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments with the names that files have beside a driver in the cluster, and the files.

    Raises:
        ConfigError: two of them would have the same name there.
    """
    there, files = list(arguments), []
    for i, word in enumerate(there):
        option, _, value = word.partition("=")
        if option not in UPLOADED:
            continue
        at = i if value else i + 1
        if at == len(there):
            raise ConfigError(SparkringError(option, "has no value", "give a file"))
        path = value or there[at]
        files.append(str(Path(path).absolute()))
        there[at] = f"{option}={Path(path).name}" if value else Path(path).name
    names = [Path(file).name for file in dict.fromkeys(files)]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(SparkringError("--deploy-mode", f"cluster: two files would be called {doubled[0]} beside the driver",
                                         "rename one"))
    return there, list(dict.fromkeys(files))
