"""What a trained model is given and gives, by its task: all that the driver needs of it, without torch.

Runs on: driver and Spark's Python workers.
Takes:   the folder of an exported model.
Gives:   ``Contract``: what rows it takes, which columns it fills, and the class that fills them in Spark's Python workers;
         ``ASKED_TASKS``, the table of tasks.

A further task is a line in that table: an ``AskedTask`` (``asked_texts.py``), and the class that it names, whose
``of(ids, contents, reasons)`` gives the columns of that many rows (``text_answers.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pyspark.sql import Column
from pyspark.sql.types import DataType

from pipelines.config.predictions import Predict
from pipelines.errors import CheckpointError, ConfigError, SparkringError
from pipelines.lake.exported import described
from pipelines.lake.store import Store
from pipelines.lake.stored_weights import WEIGHTS_NAME, weights_object
from pipelines.predict.asked_images import AskedImages
from pipelines.predict.asked_texts import AskedTexts


class AskedTask(Protocol):
    """What the models of a task are asked and answer."""

    takes: str  # what a row is: "text"; JSON lines and ``mapInArrow`` have it in a column of this name
    files: tuple[str, ...]  # formats of files (``predict.format``) that hold such rows; tables say by their columns' types
    values: str  # the types that such a column may have, in words
    answers: str  # the class that answers, as module:name, since its module imports torch

    def columns(self, settings: Predict) -> str:
        """Of an answer, as Spark's DDL: without the row's id, with ``reason``."""

    def refused(self, settings: Predict) -> str | None:
        """The name of a setting that is given and is none of this task's."""

    def max_bytes(self, facts: Mapping[str, Any]) -> int:
        """How long a row may be, where ``predict.max_row_bytes`` does not say: as when the model's data was prepared."""

    def column(self, types: Mapping[str, str]) -> str:
        """The column of a table that is given where ``predict.column`` names none.

        Args:
            types: of all columns, by their names.
        """

    def given(self, value: Column, kind: DataType) -> tuple[Column, Column] | None:
        """What of a column's value a worker is given, and its size in bytes; None where it is of none of the types."""

    def checked(self, value: Any, max_bytes: int) -> tuple[Any, str | None]:
        """A value as the answering class takes it, or None and the reason why not."""


ASKED_TASKS: dict[str, AskedTask] = {"language": AskedTexts(), "classification": AskedImages()}


@dataclass(frozen=True)
class Contract:
    """Of one model, asked in one way."""

    files: Store  # of the model
    version: str  # of its weights: another one once they are replaced
    settings: Predict
    task: str
    max_bytes: int  # longer rows are kept as "oversized"

    @property
    def folder(self) -> str:
        """Of the model, as people name it."""
        return self.files.place()

    @property
    def asked(self) -> AskedTask:
        return ASKED_TASKS[self.task]

    @property
    def columns(self) -> str:
        """Of an answer, as Spark's DDL, without the row's id."""
        return self.asked.columns(self.settings)

    @property
    def column(self) -> str:
        """Of JSON lines, and of what ``mapInArrow`` gives, the one that the model is given."""
        return self.settings.column or self.asked.takes


def contract_of(files: Store, settings: Predict) -> Contract:
    """
    Args:
        files: of the model.
    Raises:
        CheckpointError: it is no exported model, or one of a task whose models cannot be asked; it is made by a factory that
            the settings do not name. ConfigError: a setting is of another task.
    """
    folder = files.place()
    weights = files.facts(weights_object(files) or WEIGHTS_NAME)
    if weights is None:
        raise CheckpointError(folder, f"holds no {WEIGHTS_NAME}", "give the folder of an exported model")
    try:
        model, task = described(files)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(folder, f"is not an exported model ({error})", "export it again") from error
    if (factory := model.get("factory")) not in (None, settings.factory):
        raise CheckpointError(folder, f"was made by the factory {factory}",
                              f"if you trust that code, name it with --set predict.factory={factory}")
    if task.name not in ASKED_TASKS:
        raise CheckpointError(folder, f"is a model for the task {task.name!r}, which cannot be asked for predictions",
                              f"give a model for the task {' or '.join(ASKED_TASKS)}")
    asked = ASKED_TASKS[task.name]
    if (name := asked.refused(settings)) is not None:
        raise ConfigError(SparkringError(f"predict.{name}", f"is given, but the model is for the task {task.name}",
                                         "leave it out, or give a model of another task"))
    return Contract(files, weights.version, settings, task.name, settings.max_row_bytes or asked.max_bytes(task.facts))
