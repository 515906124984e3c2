"""A Spark task that writes files for a dataset version, and says in one row what it came to.

Runs on: executors.
Takes:   the version's staging, and the work.
Gives:   ``task_outcome``, for the function of ``DataFrame.mapInArrow``.

A task that Spark repeats writes under another key; the driver keeps those whose outcome it received.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark import TaskContext

from pipelines.errors import SparkringError
from pipelines.lake.staging import Staging
from pipelines.prepare.outcomes import task_fault
from pipelines.prepare.workers import lighten_worker


def task_outcome(staging: Staging, work: Callable[[Path], dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    """One row, the outcome as JSON: ``{"partition": number, "attempt": key, ...}`` and what the work gave, or
    ``{"fault": {...}}`` where reading or writing failed.

    Args:
        work: writes into the folder that it is given, whose files become objects below the attempt's key.
    """
    context = TaskContext.get()
    partition = context.partitionId() if context else 0
    attempt = f"attempt-{partition:06d}-{uuid.uuid4().hex}"
    try:
        with staging.folder(attempt) as folder:
            outcome = {"partition": partition, "attempt": attempt, **work(folder)}
    except (OSError, SparkringError) as error:
        outcome = {"fault": task_fault(error, staging.files.place(attempt))}
    yield pa.RecordBatch.from_pydict({"outcome": [json.dumps(outcome)]})
    lighten_worker()
