"""A model inside one of Spark's Python workers: loaded once, used by every task that the worker runs.

Runs on: Spark's Python workers.
Takes:   a ``Contract``.
Gives:   ``answers_of``. Its parameters are the mapped file, so the workers of a machine share them; a task computes on the
         cores that Spark gives to it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol, cast

from pyspark import TaskContext

from pipelines.errors import CheckpointError
from pipelines.lake.stored_weights import WEIGHTS_NAME, weights_object
from pipelines.predict.contracts import Contract


class Answers(Protocol):
    """What a model says of rows."""

    def of(self, ids: Sequence[str], contents: Sequence[Any], reasons: Sequence[str | None]) -> dict[str, list[Any]]:
        """The contract's columns, a value for each row.

        Args:
            contents: as the task's ``checked`` gives them; None where there is a reason why the row cannot be used.
        """


@lru_cache(maxsize=2)
def _answers(contract: Contract, threads: int) -> Answers:
    """Ready; this process computes on so many threads from now on."""
    module, _, name = contract.asked.answers.partition(":")
    importlib.import_module("torch").set_num_threads(threads)
    return cast(Answers, getattr(importlib.import_module(module), name)(contract))


def answers_of(contract: Contract) -> Answers:
    """
    Raises:
        CheckpointError: the model is damaged, does not fit this version, or has been replaced since it was looked at.
        ConfigError: the user's factory cannot be used.
    """
    task = TaskContext.get()
    files = contract.files
    facts = files.facts(weights_object(files) or WEIGHTS_NAME)
    if facts is None or facts.version != contract.version:
        raise CheckpointError(contract.folder, "has been replaced or removed since the job began", "start it again")
    return _answers(contract, 1 if task is None else task.cpus())
