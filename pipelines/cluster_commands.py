"""The commands that look at machines and lakes: ``sparkring doctor``, ``clean``, and ``submit`` to a cluster.

Runs on: driver; the machine that submits.
Takes:   command-line arguments.
Gives:   ``doctor``, ``clean``, ``submit``, for ``cli.py``.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pipelines.config import load_platform
from pipelines.console import TrainingProgress, say
from pipelines.errors import ConfigError, SparkringError
from pipelines.flow.cleaning import clean_lake
from pipelines.flow.submission import submission
from pipelines.options import DryRunOption, PlatformOption, SetOption
from pipelines.spark.doctor import Check, check_all, check_store
from pipelines.spark.submit_command import DeployMode, Manager, Wish, command_lines

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="prepare, train, pipeline, evaluate or predict, or the path of "
                                            "its job file; its own arguments follow.")]
ToOption = Annotated[Manager, typer.Option("--to", help="What manages the cluster.")]
MasterOption = Annotated[str | None, typer.Option("--master", metavar="URL", help="Of a standalone cluster; by default the "
                                                  "platform's.")]
DeployOption = Annotated[DeployMode, typer.Option("--deploy-mode", help="The driver: on this machine, or in the cluster.")]
PackageOption = Annotated[str | None, typer.Option("--package", metavar="FILE", help="What executors get: the packed environment "
                                                   "(make package), or the wheel where they have all else; on k8s the "
                                                   "image.")]
PerExecutorOption = Annotated[int, typer.Option("--ranks-per-executor", min=1, help="Ranks that share an executor.")]
StorageOption = Annotated[str | None, typer.Option("--storage", metavar="URL", help="Try there what a lake relies on, and "
                                                   "nothing else; a platform may give storage.options.")]
FOLLOWED_BY_A_JOB = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def doctor(platform: PlatformOption | None = None, set_: SetOption = None, storage: StorageOption = None) -> None:
    """Check this machine: Java, Python, Spark, Horovod's build, ports, disk, memory. With --storage: check a lake's place."""
    checked = load_platform(platform, [*(set_ or []), *([] if storage is None else [f"storage.root={storage}"])])
    if storage is not None:
        _tell(check_store(checked))
        return
    if platform is None:
        layout = checked.layout
        ranks = "layout auto" if layout.automatic else f"{layout.num_replicas} replicas x {layout.num_segments} segments"
        say(f"no --platform given; assumed: Spark {checked.spark.master}, {ranks} on {layout.device}, "
            f"storage.root {checked.storage.root}")
    _tell(check_all(checked))


def _tell(checks: list[Check]) -> None:
    for check in checks:
        say(f"{check.status:4}  {check.name}: {check.found}" + (f"  ->  {check.fix}" if check.fix else ""))
    if any(check.status == "FAIL" for check in checks):
        raise typer.Exit(5)


def clean(platform: PlatformOption, set_: SetOption = None, dry_run: DryRunOption = False) -> None:
    """Remove what killed jobs left in the lake, which no reader sees."""
    clean_lake(load_platform(platform, set_).storage, say, dry_run=dry_run)


def submit(context: typer.Context, job: JobArgument, to: ToOption, master: MasterOption = None,
           deploy_mode: DeployOption = DeployMode.client, package: PackageOption = None,
           ranks_per_executor: PerExecutorOption = 1, dry_run: DryRunOption = False) -> None:
    """Submit a job to a cluster: sparkring submit --to yarn --package FILE pipeline --recipe FILE --platform FILE ..."""
    command = submission(Wish(to, master, deploy_mode, package, ranks_per_executor), job, context.args, TrainingProgress())
    if dry_run:
        print(command_lines(command))
        return
    if to is Manager.yarn and not {"HADOOP_CONF_DIR", "YARN_CONF_DIR"} & os.environ.keys():
        raise ConfigError(SparkringError("HADOOP_CONF_DIR", "is not set", "set it to the folder of the cluster's yarn-site.xml"))
    os.execv(command[0], command)  # noqa: S606 - signals are spark-submit's, and so is the exit code
