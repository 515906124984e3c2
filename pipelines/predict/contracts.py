"""What a trained model is given and gives, by its task: all that the driver needs of it, without torch.

Runs on: driver.
Takes:   the folder of an exported model.
Gives:   ``Contract``: what rows it takes, which columns it fills, and the module that fills them in Spark's Python workers.

A further task is a line in ``contract_of`` and a module that holds ``loaded(contract, threads)``, which gives an object with
``of(ids, contents, reasons)``: the columns of that many rows (``text_answers.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.config.predictions import Predict
from pipelines.errors import CheckpointError
from pipelines.lake.exported import described
from pipelines.lake.paths import WEIGHTS_NAME
from pipelines.lake.store import FolderStore


@dataclass(frozen=True)
class Contract:
    """Of one model, asked in one way."""

    folder: str  # of the model
    version: str  # of its weights: another one once they are replaced
    settings: Predict
    task: str
    takes: str  # "text" or "image"
    columns: str  # as Spark's DDL, without the row's id
    module: str  # that fills them; by its name, since it imports torch


SCORES = "tokens BIGINT, bytes BIGINT, log_likelihood DOUBLE, bits_per_byte DOUBLE, reason STRING"
CONTINUATIONS = "continuation STRING, tokens BIGINT, reason STRING"


def contract_of(folder: str | Path, settings: Predict) -> Contract:
    """
    Raises:
        CheckpointError: it is no exported model, or one of a task whose models cannot be asked.
    """
    files = FolderStore(Path(folder).absolute())
    weights = files.facts(WEIGHTS_NAME)
    if weights is None:
        raise CheckpointError(str(folder), f"holds no {WEIGHTS_NAME}", "give the folder of an exported model")
    try:
        _, task = described(files)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(str(folder), f"is not an exported model ({error})", "export it again") from error
    if task.name != "language":
        raise CheckpointError(str(folder), f"is a model for the task {task.name!r}, which cannot be asked for predictions",
                              "give a model for the task language")
    return Contract(files.place(), weights.version, settings, task.name, "text",
                    SCORES if settings.generate is None else CONTINUATIONS, "pipelines.predict.text_answers")
