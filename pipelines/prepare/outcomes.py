"""What the tasks of a prepare's Spark job came to, whatever kind of data it is.

Runs on: driver.
Takes:   the outcome of each partition: ``fault``, or ``counts`` (``input_records``, ``rejected_<reason>``) and ``examples``.
Gives:   faults raised; the line that says that much was refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.errors import DataError, SparkringError, StorageError
from pipelines.lake.paths import Lake

UNWRITABLE = "cannot be written: "
MANY_REJECTED = 0.05  # of all records: worth a line of its own
Outcomes = list[dict[str, Any]]


def raise_faults(outcomes: Outcomes) -> None:
    """
    Raises:
        DataError, StorageError: what a task met, in place of an exception of its own.
    """
    for fault in (outcome["fault"] for outcome in outcomes if "fault" in outcome):
        if fault["kind"] == "data":
            raise DataError(fault["place"], fault["problem"], fault.get("remedy", "restore it or move it out of the input"))
        raise StorageError(fault["place"], f"{UNWRITABLE}{fault['problem']}",
                           fault.get("remedy", "free space, fix permissions, or set storage.root to another folder"))


def task_fault(error: OSError | SparkringError, place: str) -> dict[str, str]:
    """What stopped a task, as its outcome says it: an exception would be retried, and reach the user as a Java trace."""
    if isinstance(error, SparkringError):
        return {"kind": "data" if isinstance(error, DataError) else "storage", "place": error.place,
                "problem": error.problem.removeprefix(UNWRITABLE), "remedy": error.remedy}
    return {"kind": "storage", "place": str(error.filename or place), "problem": error.strerror or str(error)}


def rejected_warning(counts: Mapping[str, int], outcomes: Outcomes, lake: Lake) -> str | None:
    """One line where more than ``MANY_REJECTED`` of the records are refused: how many, mostly why, and an example."""
    records, prefix = counts["input_records"], "rejected_"
    by_reason = {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix)}
    rejected = sum(by_reason.values())
    if rejected <= MANY_REJECTED * records:
        return None
    reason = max(by_reason, key=by_reason.__getitem__)
    examples = (outcome["examples"].get(reason) for outcome in outcomes)
    source, position, detail = next(example for example in examples if example is not None)
    return (f"prepare: {rejected:,} of {records:,} records ({rejected / records:.0%}) were rejected, {by_reason[reason]:,} "
            f"of them as {reason}, for example {source!r} at {position} ({detail!r}); "
            f"see the table {lake.store.place(lake.table('rejected'))}")
