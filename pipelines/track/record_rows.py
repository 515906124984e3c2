"""New whole lines of the ranks' record files, as rows of a table.

Runs on: driver.
Takes:   a record file and how many bytes of it are already taken in.
Gives:   rows with the columns of one table, or DataError naming file and line.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.errors import DataError
from pipelines.lake.metric_facts import METRIC_NAMES
from pipelines.lake.schemas import arrow_schema

Row = dict[str, Any]
RECORD_KIND = {"steps": "step", "rank_steps": "step", "evaluations": "evaluation"}
_RENAMED = {"steps": {"units": "global_units", "samples": "global_samples"}}  # table column -> record field
# columns that records lack: metrics that the task does not have, or that were not there yet; what only the job evaluate says
_MAY_LACK = {"evaluations": {*METRIC_NAMES, "model", "dataset_name", "dataset_version"}}


def new_rows(table: str, run_id: str, attempt: int, rank: int, path: Path, offset: int, max_bytes: int
             ) -> tuple[list[Row], int]:
    """Rows from the whole lines behind ``offset``, and the offset behind them.

    Takes about ``max_bytes`` at most, one line at least. A last line without its newline is left for later.

    Raises:
        DataError: a whole line is not a record, or lacks a field of this table.
    """
    lines, end = _whole_lines(path, offset, max_bytes)
    if not lines:
        return [], offset
    fixed = {"run_id": run_id, "attempt": attempt, "rank": rank}
    if table == "rank_steps":
        fixed |= _place_of_rank(path)
    fields = [(column.name, _RENAMED.get(table, {}).get(column.name, column.name), _CONVERTERS[str(column.type)])
              for column in arrow_schema(table) if column.name not in (*fixed, "time")]
    lacking: dict[str, None] = dict.fromkeys(_MAY_LACK.get(table, ()))
    rows = []
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            if record["kind"] != RECORD_KIND[table]:
                continue
            record = lacking | record if lacking else record
            row = {name: None if (value := record[field]) is None else convert(value) for name, field, convert in fields}
            rows.append({**fixed, **row, "time": round(float(record["time_s"]) * 1e6)})
        except (KeyError, TypeError, ValueError) as error:
            raise _not_a_record(path, offset, number, error) from error
    return rows, end


def to_table(table: str, rows: list[Row]) -> pa.Table:
    """The rows in the order of step (and rank), with exactly the table's columns."""
    rows = sorted(rows, key=lambda row: (row["step"], row["rank"]))
    schema = arrow_schema(table)
    try:
        return pa.table([pa.array([row[field.name] for row in rows], field.type) for field in schema], schema=schema)
    except (pa.ArrowInvalid, OverflowError) as error:
        place = f"run {rows[0]['run_id']}"
        raise DataError(place, f"a record holds a number that table {table} cannot ({error})") from error


def last_exhibits(path: Path) -> dict[str, Any] | None:
    """The newest ``exhibits`` record of a rank's file; lines that are not whole records are none."""
    found = None
    if path.exists():
        with open(path, "rb") as file:
            for line in file:
                if b'"exhibits"' in line and line.endswith(b"\n"):  # cheap test first: most lines are steps
                    try:
                        record = json.loads(line)
                        found = record if record["kind"] == "exhibits" else found
                    except (KeyError, TypeError, ValueError):
                        continue
    return found


def _whole_lines(path: Path, offset: int, max_bytes: int) -> tuple[list[bytes], int]:
    with open(path, "rb") as file:
        file.seek(offset)
        content = file.read(max_bytes)
        if not content.endswith(b"\n"):
            content += file.readline()  # to the end of the line that max_bytes cut
    whole, newline, _ = content.rpartition(b"\n")
    return (whole.split(b"\n"), offset + len(whole) + 1) if newline else ([], offset)


def _place_of_rank(path: Path) -> dict[str, int | None]:
    """``replica_index`` and ``segment_index``, which the rank's first record says."""
    with open(path, "rb") as file:
        first = file.readline()
    try:
        record = json.loads(first)
        return {name: operator.index(record[name]) for name in ("replica_index", "segment_index")}
    except (KeyError, TypeError, ValueError) as error:
        raise _not_a_record(path, 0, 0, error) from error


def _not_a_record(path: Path, offset: int, number: int, error: Exception) -> DataError:
    """Counts lines only now: the way without errors never needs their numbers."""
    with open(path, "rb") as file:
        line_number = file.read(offset).count(b"\n") + number + 1
    what = f"field {error} is missing" if isinstance(error, KeyError) else f"{error}"
    return DataError(f"{path}, line {line_number}", f"is not a whole record ({what})",
                     "the file was changed after it was written; mend or remove the line, then run the report job")


def _number(value: Any) -> float:
    if isinstance(value, str | bool):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "int32": operator.index, "int64": operator.index, "double": _number, "string": _text}
