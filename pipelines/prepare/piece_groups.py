"""Which pieces of files each Spark task reads, where the tasks find it.

Runs on: driver (puts), executors (read).
Takes:   pieces, as tuples of what JSON holds, in the group of each task.
Gives:   ``put_groups``, ``group_of``. A task's closure would carry the pieces of all: there may be millions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipelines.lake.store import Store
from pipelines.prepare.threads import in_threads


def put_groups(files: Store, groups: Sequence[Sequence[tuple[Any, ...]]]) -> None:
    """Raises StorageError where one cannot be written."""
    for _ in in_threads(lambda index: files.put(_key(index), json.dumps(groups[index])), range(len(groups))):
        """Each is there."""


def group_of(files: Store, index: int) -> list[list[Any]]:
    """The pieces of one task."""
    pieces: list[list[Any]] = json.loads(files.read(_key(index)))
    return pieces


def _key(index: int) -> str:
    return f"pieces/{index}.json"
