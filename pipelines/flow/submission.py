"""A job as the ``spark-submit`` that starts it on a cluster, checked before it is on its way.

Runs on: the machine that submits.
Takes:   the job's name and arguments, as the job files take them; what is asked of the cluster.
Gives:   ``submission``: the words of the command. Nothing is started.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pyspark

from pipelines.config import Platform, load_config, load_platform
from pipelines.config.load import Config
from pipelines.config.secrets import masked_override, masked_text
from pipelines.errors import CheckpointError, ConfigError, DataError, ResourceError, SparkringError, StorageError
from pipelines.flow.flow import JOBS, Flow
from pipelines.flow.stage import Job
from pipelines.launch.observer import Observer
from pipelines.launch.planning import TrainPlan
from pipelines.spark.submit_command import Manager, Wish, submit_command

SUBMITTED = ("prepare", "train", "pipeline", "evaluate", "predict")
UNKNOWN_RANK_BYTES = 2 * 1024**3
_JOB_FILES = Path(__file__).parents[2] / "jobs"  # of a checkout


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(SparkringError("the job's arguments", message, "see the job's --help"))


@dataclass(frozen=True)
class Asked:
    """What of a job's arguments matters to the cluster; the job reads them all."""

    recipe: str | None
    platform: str | None
    run_id: str | None
    overrides: tuple[str, ...]

    @staticmethod
    def of(arguments: Sequence[str]) -> Asked:
        parser = _Parser(add_help=False, allow_abbrev=False)
        for option in ("--recipe", "--platform", "--run-id"):
            parser.add_argument(option)
        parser.add_argument("--set", action="append", default=[])
        found, _ = parser.parse_known_args(arguments)
        return Asked(found.recipe, found.platform, found.run_id, tuple(found.set))


def submission(wish: Wish, job: str, arguments: Sequence[str], observer: Observer) -> list[str]:
    """
    Args:
        job: its name, or the path of its file.
    Raises:
        ConfigError: the job's files and settings, or what is asked of the cluster, all faults together.
    """
    file = Path(job).absolute() if job.endswith(".py") else _JOB_FILES / f"{job}.py"
    name = file.stem
    if name not in SUBMITTED:
        raise ConfigError(SparkringError(f"job {job!r}", "is none that runs on a cluster", f"use {', '.join(SUBMITTED)}"))
    if not file.is_file():
        raise ConfigError(SparkringError(f"job {job!r}", f"{file} is not there", "give the path of a file in the repository's "
                                         "folder jobs"))
    asked = Asked.of(arguments)
    if asked.platform is None:
        raise ConfigError(SparkringError("--platform", "is missing behind the job's name", "give the platform file"))
    config = None if asked.recipe is None else load_config(asked.recipe, asked.platform, [*asked.overrides])
    platform = load_platform(asked.platform, [*asked.overrides]) if config is None else config.platform
    _refuse_secrets(arguments, asked.overrides, platform)
    rank_bytes = _rank_bytes(platform, config, name, asked, observer) if wish.manager is not Manager.standalone else 0
    command = submit_command(wish, file, arguments, platform, name=name if config is None else config.recipe.name,
                             rank_bytes=rank_bytes, own_python=sys.executable)
    return [_spark_submit(), *command]


def _refuse_secrets(arguments: Sequence[str], overrides: Sequence[str], platform: Platform) -> None:
    shown = [*((f"--set {each}", f"--set {masked_override(each, platform.spark.conf)}") for each in overrides),
             *((word, masked_text(word)) for word in arguments)]
    for word, masked in shown:
        if word != masked:
            raise ConfigError(SparkringError(masked, "a secret would stand in a command line, which every user of the machine "
                                             "can read", "write it into the platform file, or leave it to the environment"))


def _rank_bytes(platform: Platform, config: Config | None, name: str, asked: Asked, observer: Observer) -> int:
    """What the plan says that a rank needs, where the dataset is there to plan with."""
    if platform.layout.memory_per_rank_bytes is not None:
        return platform.layout.memory_per_rank_bytes
    if config is not None and "train" in JOBS[name]:
        with Job(config, asked.run_id, "", observer.say, observer) as job:
            flow = Flow(job, JOBS[name])
            try:
                flow.plan()
            except (CheckpointError, DataError, ResourceError, StorageError) as error:  # what only the cluster sees
                observer.say(f"not planned here: {error}")
            planned = flow.planned.get("train")
        if planned is not None and isinstance(planned.content, TrainPlan) and planned.content.attempt is not None:
            return planned.content.attempt.memory_bytes
    if name != "prepare":
        observer.say(f"what a rank needs is known once the dataset is there: {UNKNOWN_RANK_BYTES // 2**30} GiB assumed; "
                     "layout.memory_per_rank_bytes says another number")
    return UNKNOWN_RANK_BYTES


def _spark_submit() -> str:
    """Of this environment, which knows where its Spark is."""
    own = Path(sys.executable).with_name("spark-submit")
    return str(own) if own.is_file() else shutil.which("spark-submit") or str(Path(pyspark.__file__).parent / "bin/spark-submit")
