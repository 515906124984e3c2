"""The table of tasks.

Runs on: ranks, and the process in which the driver lets a user's model be looked at.
Takes:   the task's facts in a dataset's manifest.
Gives:   ``task_of``.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.errors import DataError
from pipelines.lake.task_facts import TaskFacts
from pipelines.tasks.classification import Classification
from pipelines.tasks.language import Language
from pipelines.tasks.task import Task

TASKS: dict[str, Callable[[TaskFacts], Task]] = {"language": Language, "classification": Classification}


def task_of(facts: TaskFacts) -> Task:
    """The task that a dataset was prepared for.

    Raises:
        DataError: there is none of that name here.
    """
    if facts.name not in TASKS:
        raise DataError("manifest", f"the dataset is for the task {facts.name!r}; there are: {', '.join(TASKS)}",
                        "use the version that prepared it")
    return TASKS[facts.name](facts)
