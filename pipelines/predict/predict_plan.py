"""What a predict job would do: which model, which rows, into which folder.

Runs on: driver.
Takes:   the lake, a run's id, what the command asks for.
Gives:   ``PredictPlan``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from glob import has_magic
from itertools import takewhile
from os.path import lexists
from pathlib import Path
from typing import Any

from pipelines.config.predictions import Predict
from pipelines.errors import ConfigError, DataError, SparkringError
from pipelines.lake.exported import trained_model
from pipelines.lake.paths import Lake
from pipelines.lake.remote_folder import local_path
from pipelines.lake.stored_weights import WEIGHTS_NAME, weights_object
from pipelines.predict.answered import OutputFolder
from pipelines.predict.contracts import ASKED_TASKS, Contract, contract_of
from pipelines.predict.given_rows import PLACE, Look, is_local, look_at
from pipelines.prepare.inputs import is_url

FORMAT = 1  # of the output


@dataclass(frozen=True)
class PredictRequest:
    """What the command was asked for."""

    model: str
    input: str
    output: str
    settings: Predict


@dataclass(frozen=True)
class PredictPlan:
    """One job."""

    contract: Contract
    model: dict[str, str]  # run, which model, digest of its weights
    input: str
    output: OutputFolder
    look: Look | None  # None: only Spark can see the input

    def identity(self, look: Look) -> dict[str, Any]:
        """What the predictions are of, in the words of the error that tells of another one."""
        settings = self.contract.settings.model_dump(mode="json", exclude={"rows"})
        return {"format": FORMAT, "model": self.model, "settings": settings, "input": {
            "path": look.path, "format": look.format, "content": look.identity, "split_bytes": look.split_bytes}}


def refuse_other_input(contract: Contract, look: Look) -> None:
    """Raises DataError where the input is not what the model takes."""
    if look.format not in (*contract.asked.files, "parquet", "table"):  # which say by their columns' types
        given, takes = next(task.takes for task in ASKED_TASKS.values() if look.format in task.files), contract.asked.takes
        raise DataError(PLACE, f"{look.path} holds {given}s, but the model is for the task {contract.task}, which takes {takes}s",
                        f"give {takes}s, or a run of another task")


def refuse_shared_folder(given: str, output: Path) -> None:
    """Raises ConfigError where predictions would become a part of a local input, or the input one of theirs.

    Args:
        given: file, folder or glob.
    """
    path = Path(local_path(given)).expanduser().absolute()
    if lexists(path):
        inside, begin = output.resolve().is_relative_to(path.resolve()), path
    else:
        inside = any(_matches(each, str(path)) for each in (output / "part-0.parquet", output, *output.parents))
        begin = Path(*takewhile(lambda part: not has_magic(part), path.parts))
    if inside or begin.resolve().is_relative_to(output.resolve()):
        raise ConfigError(SparkringError("--output", f"{output} {'is a part of' if inside else 'holds'} the input {path}",
                                         "give a folder beside the input"))


def _matches(path: Path, pattern: str) -> bool:
    return fnmatch(str(path), pattern) if "**" in pattern else path.match(pattern)


def plan_predict(lake: Lake, run_id: str, request: PredictRequest) -> PredictPlan:
    """Looks at the lake and at a local input; writes nothing.

    Raises:
        ConfigError, DataError, CheckpointError: what would be refused.
    """
    if is_url(request.output):
        raise ConfigError(SparkringError("--output", f"{request.output} is a URL",
                                         "give a folder that driver and executors see under the same path"))
    folder = Path(local_path(request.output)).expanduser().absolute()
    if is_local(request.input):
        refuse_shared_folder(request.input, folder)
    files = trained_model(lake, run_id, request.model)
    contract = contract_of(files, request.settings)
    look = look_at(request.input, request.settings, lake.root) if is_local(request.input) else None
    if look is not None:
        refuse_other_input(contract, look)
    model = {"run": run_id, "model": request.model, "sha256": files.sha256(weights_object(files) or WEIGHTS_NAME)}
    return PredictPlan(contract, model, request.input, OutputFolder(str(folder)), look)
