"""The Parquet files of a metrics table: they only grow, and each knows what it has read.

Runs on: driver.
Takes:   rows, and a cursor: how many bytes of each record file the part has taken in.
Gives:   part files that any Parquet reader can read at any moment.

A part holds its rows *and* its cursor, so one rename publishes both: a load that is killed has either happened or not,
and repeating it adds nothing twice.

A new version of a part starts with the very bytes of the old one, row group by row group, and adds a row group. Spark
opens a file several times per read (length, footer, rows); whichever versions it meets, the offsets it holds are true.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.lake.paths import Lake
from pipelines.lake.schemas import arrow_schema
from pipelines.lake.store import TEMPORARY_PREFIX, write_file

Cursor = dict[str, int]  # bytes taken in, by the name of the record file
PART_ROWS = 50_000  # a part with more is not added to any longer: every load writes the open part again
PART_ROW_GROUPS = 256  # one per load: at a load every 5 s a new part after 21 minutes
COLUMNS_FILE = "00-columns.parquet"  # no rows: a table without runs has its columns
_CURSOR_KEY = b"sparkring.cursor"


@dataclass(frozen=True)
class TablePart:
    """One part file of a table: what it holds, without its rows."""

    path: Path
    rows: int
    row_groups: int
    last_step: int  # the highest; -1 where it has no rows
    cursor: Cursor

    @property
    def full(self) -> bool:
        return self.rows >= PART_ROWS or self.row_groups >= PART_ROW_GROUPS

    @staticmethod
    def of(path: Path) -> TablePart:
        """Reads the file's footer.

        Raises:
            DataError: not a part file.
        """
        try:
            footer = pq.read_metadata(path)
            return TablePart(path, footer.num_rows, footer.num_row_groups, _highest(footer, "step"),
                        json.loads(footer.metadata[_CURSOR_KEY]))
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise _damaged(path, error) from error


def open_part_path(lake: Lake, table: str, run_id: str, attempt: int) -> Path:
    """The part that new rows go to: the newest, or the next one where that is full."""
    paths = part_paths(lake, table, run_id, attempt)
    index = len(paths) - 1 if paths and not TablePart.of(paths[-1]).full else len(paths)
    return lake.table(table) / f"{run_id}-{attempt:03d}-{index:05d}.parquet"


def part_paths(lake: Lake, table: str, run_id: str, attempt: int | None = None) -> list[Path]:
    """Part files of a run, or of one attempt, in order; whole names are matched: one id may begin with another."""
    name = re.compile(re.escape(run_id) + (r"-\d{3,}" if attempt is None else f"-{attempt:03d}") + r"-\d{5}\.parquet")
    folder = lake.table(table)
    return sorted(path for path in folder.iterdir() if name.fullmatch(path.name)) if folder.is_dir() else []


def append_rows(path: Path, rows: pa.Table, cursor: Cursor) -> None:
    """Adds ``rows`` as one row group and moves the cursor, in one rename."""
    _write(path, [*_row_groups(path), rows], rows.schema, cursor)


def take_back(part: TablePart, limit: int) -> None:
    """Removes rows with a step above ``limit``; row groups without such rows keep their bytes."""
    groups = [group.filter(pc.less_equal(group["step"], limit)) for group in _row_groups(part.path)]
    _write(part.path, groups, pq.read_schema(part.path), part.cursor)


def read_row_groups(lake: Lake, table: str, run_id: str, columns: list[str]) -> Iterator[pa.Table]:
    """Columns of all rows of one run, one row group after the other: what one load added, so of bounded size."""
    schema = pa.schema([arrow_schema(table).field(name) for name in columns])
    for path in part_paths(lake, table, run_id):
        yield from (rows.cast(schema) for rows in _row_groups(path, columns))


def read_rows(lake: Lake, table: str, run_id: str, columns: list[str]) -> pa.Table:
    """Columns of all rows of one run at once: for tables with few rows."""
    schema = pa.schema([arrow_schema(table).field(name) for name in columns])
    return pa.concat_tables([schema.empty_table(), *read_row_groups(lake, table, run_id, columns)])


def highest(lake: Lake, table: str, run_id: str, column: str) -> int:
    """The highest value of an integer column in a run's rows, from the files' footers; -1 where there is no row."""
    found = -1
    for path in part_paths(lake, table, run_id):
        try:
            found = max(found, _highest(pq.read_metadata(path), column))
        except (pa.ArrowInvalid, ValueError) as error:
            raise _damaged(path, error) from error
    return found


def ensure_columns(lake: Lake, table: str) -> None:
    """Gives the table's folder a file without rows, so that it can be read before the first run."""
    path = lake.table(table) / COLUMNS_FILE
    if not path.exists():
        _write(path, [], arrow_schema(table), {})


def write_one_row(path: Path, row: pa.Table) -> None:
    """Replaces a file of a single row, unless it holds the very same.

    While only numbers change, every value keeps its place in the file, so that a reader holding the replaced file's
    footer still reads whole values.
    """
    content = io.BytesIO()
    pq.write_table(row, content)
    if not path.exists() or path.read_bytes() != content.getvalue():
        write_file(path, content.getvalue())


def _row_groups(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """All columns, or those given."""
    if path.exists():
        try:
            with pq.ParquetFile(path) as file:
                for index in range(file.num_row_groups):
                    yield file.read_row_group(index, columns)
        except (pa.ArrowInvalid, ValueError) as error:
            raise _damaged(path, error) from error


def _highest(footer: pq.FileMetaData, column: str) -> int:
    place = footer.schema.to_arrow_schema().get_field_index(column)
    return max((footer.row_group(i).column(place).statistics.max for i in range(footer.num_row_groups)), default=-1)


def _write(path: Path, row_groups: Iterable[pa.Table], schema: pa.Schema, cursor: Cursor) -> None:
    schema = schema.with_metadata({_CURSOR_KEY: json.dumps(cursor)})
    content = io.BytesIO()
    with pq.ParquetWriter(content, schema, compression="snappy") as writer:
        for rows in row_groups:
            if rows.num_rows:
                writer.write_table(rows.replace_schema_metadata(schema.metadata), row_group_size=rows.num_rows)
    _clear_litter(path)
    if not path.exists() or path.read_bytes() != content.getvalue():
        write_file(path, content.getvalue())


def _clear_litter(path: Path) -> None:
    """What killed loads left beside the target (its claim is held, so nobody is writing it)."""
    start = f"{TEMPORARY_PREFIX}{path.name}-"
    if path.parent.is_dir():
        for other in path.parent.iterdir():
            if other.name.startswith(start):
                other.unlink(missing_ok=True)


def _damaged(path: Path, error: Exception) -> DataError:
    run_files = re.sub(r"-\d+-\d+\.parquet$", "-*", path.name)
    return DataError(str(path), f"is not a whole table file ({' '.join(str(error).split())})",
                     f"delete {run_files} beside it and run the report job: the rows come back from the run's records")
