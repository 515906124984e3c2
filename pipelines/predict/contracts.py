"""What a trained model is given and gives, by its task: all that the driver needs of it, without torch.

Runs on: driver.
Takes:   the folder of an exported model.
Gives:   ``Contract``: what rows it takes, which columns it fills, and the class that fills them in Spark's Python workers.

A further task is a line in ``contract_of`` and a class whose ``of(ids, contents, reasons)`` gives the columns of that many rows
(``text_answers.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.config.predictions import Predict
from pipelines.errors import CheckpointError, ConfigError, SparkringError
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
    answers: str  # the class that fills them, as module:name, since its module imports torch

    @property
    def column(self) -> str:
        """Of a table, the one that the model is given."""
        return self.settings.column or self.takes


SCORES = "tokens BIGINT, bytes BIGINT, log_likelihood DOUBLE, bits_per_byte DOUBLE, reason STRING"
CLASSES = "label STRING, probability DOUBLE, labels ARRAY<STRING>, probabilities ARRAY<DOUBLE>, reason STRING"
CONTINUATIONS = "continuation STRING, tokens BIGINT, reason STRING"


def contract_of(folder: str | Path, settings: Predict) -> Contract:
    """
    Raises:
        CheckpointError: it is no exported model, or one of a task whose models cannot be asked. ConfigError: not so.
    """
    files = FolderStore(Path(folder).absolute())
    weights = files.facts(WEIGHTS_NAME)
    if weights is None:
        raise CheckpointError(str(folder), f"holds no {WEIGHTS_NAME}", "give the folder of an exported model")
    try:
        _, task = described(files)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(str(folder), f"is not an exported model ({error})", "export it again") from error
    if task.name == "language":
        return Contract(files.place(), weights.version, settings, task.name, "text",
                        SCORES if settings.generate is None else CONTINUATIONS, "pipelines.predict.text_answers:TextAnswers")
    if task.name != "classification":
        raise CheckpointError(str(folder), f"is a model for the task {task.name!r}, which cannot be asked for predictions",
                              "give a model for the task language or classification")
    if settings.generate is not None:
        raise ConfigError(SparkringError("predict.generate", "is given, but the model is for the task classification",
                                         "leave it out, or give a model for the task language"))
    return Contract(files.place(), weights.version, settings, task.name, "image", CLASSES,
                    "pipelines.predict.image_answers:ImageAnswers")
