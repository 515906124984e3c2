"""The Parquet files of a metrics table: they only grow, and each knows what it has read.

Runs on: driver.
Takes:   rows, and a cursor: how many bytes of each record file the part has taken in.
Gives:   part files that any Parquet reader can read at any moment.

A part holds its rows *and* its cursor, so both are published at once: a load that is killed has either happened or not,
and repeating it adds nothing twice. A part of ``steps`` also holds what all rows up to its own come to (``totals.py``).

A new version of a part starts with the very bytes of the old one, row group by row group, and adds a row group. Spark
opens a file several times per read (length, footer, rows); whichever versions it meets, the offsets it holds are true.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.lake.paths import Lake
from pipelines.lake.schemas import arrow_schema
from pipelines.lake.store import Store

Cursor = dict[str, int]  # bytes taken in, by the name of the record file
PART_ROWS = 50_000  # a part with more is not added to any longer: every load writes the open part again
PART_ROW_GROUPS = 256  # one per load (``live.py`` says how often)
COLUMNS_FILE = "00-columns.parquet"  # no rows: a table without runs has its columns
_CURSOR_KEY, _TOTALS_KEY = b"sparkring.cursor", b"sparkring.totals"


@dataclass(frozen=True)
class TablePart:
    """One part file of a table: what it holds, without its rows."""

    key: str
    rows: int
    row_groups: int
    last_step: int  # the highest; -1 where it has no rows
    cursor: Cursor
    columns: tuple[str, ...]
    totals: dict[str, Any] | None  # None: of a table that has none, or of an older version

    def takes(self, table: str) -> bool:
        """Whether rows may be added: it is not full, and no older version made it, whose columns its bytes keep."""
        full = self.rows >= PART_ROWS or self.row_groups >= PART_ROW_GROUPS
        return not full and self.columns == tuple(arrow_schema(table).names)

    @staticmethod
    def of(store: Store, key: str) -> TablePart:
        """Reads the file's footer.

        Raises:
            DataError: not a part file.
        """
        try:
            footer = _footer(store, key)
            totals = footer.metadata.get(_TOTALS_KEY)
            return TablePart(key, footer.num_rows, footer.num_row_groups, _highest(footer, "step"),
                             json.loads(footer.metadata[_CURSOR_KEY]), tuple(footer.schema.to_arrow_schema().names),
                             None if totals is None else json.loads(totals))
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise _damaged(store, key, error) from error


def open_part(lake: Lake, table: str, run_id: str, attempt: int) -> str:
    """The part that new rows go to: the newest, or the next one where that takes none."""
    keys = part_keys(lake, table, run_id, attempt)
    index = len(keys) - 1 if keys and TablePart.of(lake.store, keys[-1]).takes(table) else len(keys)
    return f"{lake.table(table)}/{run_id}-{attempt:03d}-{index:05d}.parquet"


def part_keys(lake: Lake, table: str, run_id: str, attempt: int | None = None) -> list[str]:
    """Part files of a run, or of one attempt, in order; whole names are matched: one id may begin with another."""
    whole = re.compile(re.escape(run_id) + (r"-\d{3,}" if attempt is None else f"-{attempt:03d}") + r"-\d{5}\.parquet")
    return [f"{lake.table(table)}/{name}" for name in lake.store.names(lake.table(table)) if whole.fullmatch(name)]


def attempt_of(key: str) -> int:
    """Whose part it is."""
    return int(key.rsplit("-", 2)[1])


def append_rows(store: Store, key: str, rows: pa.Table, cursor: Cursor, totals: dict[str, Any] | None = None) -> None:
    """Adds ``rows`` as one row group and moves the cursor, at once. ``totals``: of all rows up to these."""
    _write(store, key, [*_row_groups(store, key), rows], noted(rows.schema, cursor, totals))


def take_back(store: Store, part: TablePart, limit: int, totals: dict[str, Any] | None = None) -> None:
    """Removes rows with a step above ``limit``; row groups without such rows keep their bytes. ``totals``: of what is left."""
    groups = [group.filter(pc.less_equal(group["step"], limit)) for group in _row_groups(store, part.key)]
    _write(store, part.key, groups, noted(_footer(store, part.key).schema.to_arrow_schema(), part.cursor, totals))


def read_parts(lake: Lake, table: str, run_id: str, columns: list[str]) -> Iterator[pa.Table]:
    """Columns of all rows of one run, one part after the other: each has PART_ROWS, and what one load may add."""
    for key in part_keys(lake, table, run_id):
        yield read_part(lake, table, key, columns)


def read_part(lake: Lake, table: str, key: str, columns: list[str]) -> pa.Table:
    """Columns of the rows of one part.

    Raises:
        DataError: not a part file.
    """
    schema = pa.schema([arrow_schema(table).field(name) for name in columns])
    try:
        with lake.store.open(key) as content, pq.ParquetFile(content) as file:
            return _of_schema(file.read(columns), schema)
    except (pa.ArrowInvalid, ValueError) as error:
        raise _damaged(lake.store, key, error) from error


def read_rows(lake: Lake, table: str, run_id: str, columns: list[str]) -> pa.Table:
    """Columns of all rows of one run at once: for tables with few rows."""
    schema = pa.schema([arrow_schema(table).field(name) for name in columns])
    return pa.concat_tables([schema.empty_table(), *read_parts(lake, table, run_id, columns)])


def highest(lake: Lake, table: str, run_id: str, column: str) -> int:
    """The highest value of an integer column in a run's rows, from the files' footers; -1 where there is no row."""
    found = -1
    for key in part_keys(lake, table, run_id):
        try:
            found = max(found, _highest(_footer(lake.store, key), column))
        except (pa.ArrowInvalid, ValueError) as error:
            raise _damaged(lake.store, key, error) from error
    return found


def ensure_columns(lake: Lake, table: str) -> None:
    """Gives the table's folder a file without rows, so that it can be read before the first run.

    It is the first by name, whose columns Spark takes for those of all: rows of an older version lack what is new, no more.
    """
    store, key, schema = lake.store, f"{lake.table(table)}/{COLUMNS_FILE}", arrow_schema(table)
    if store.facts(key) is None or pq.read_schema(io.BytesIO(store.read(key))).names != schema.names:
        _write(store, key, [], noted(schema, {}))


def write_one_row(store: Store, key: str, row: pa.Table) -> None:
    """Replaces a file of a single row, unless it holds the very same.

    While only numbers change, every value keeps its place in the file, so that a reader holding the replaced file's
    footer still reads whole values.
    """
    content = io.BytesIO()
    pq.write_table(row, content)
    _put_changed(store, key, content.getvalue())


def _row_groups(store: Store, key: str) -> Iterator[pa.Table]:
    """Nothing of a part that is not there yet."""
    if store.facts(key) is not None:
        try:
            with store.open(key) as content, pq.ParquetFile(content) as file:
                for index in range(file.num_row_groups):
                    yield file.read_row_group(index)
        except (pa.ArrowInvalid, ValueError) as error:
            raise _damaged(store, key, error) from error


def _of_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """With nulls for columns that an older version did not write."""
    return pa.table([rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
                     for field in schema], schema=schema)


def _footer(store: Store, key: str) -> pq.FileMetaData:
    with store.open(key) as content:
        return pq.read_metadata(content)


def _highest(footer: pq.FileMetaData, column: str) -> int:
    place = footer.schema.to_arrow_schema().get_field_index(column)
    return max((footer.row_group(i).column(place).statistics.max for i in range(footer.num_row_groups)), default=-1)


def noted(schema: pa.Schema, cursor: Cursor, totals: dict[str, Any] | None = None) -> pa.Schema:
    """The schema with what a part knows beside its rows."""
    notes = {_CURSOR_KEY: json.dumps(cursor)}
    return schema.with_metadata(notes if totals is None else notes | {_TOTALS_KEY: json.dumps(totals)})


def _write(store: Store, key: str, row_groups: Iterable[pa.Table], schema: pa.Schema) -> None:
    content = io.BytesIO()
    with pq.ParquetWriter(content, schema, compression="snappy") as writer:
        for rows in row_groups:
            if rows.num_rows:
                writer.write_table(rows.replace_schema_metadata(schema.metadata), row_group_size=rows.num_rows)
    store.clear_litter(key)  # the run's claim is held, so nobody is writing it
    _put_changed(store, key, content.getvalue())


def _put_changed(store: Store, key: str, content: bytes) -> None:
    if store.facts(key) is None or store.read(key) != content:
        store.put(key, content)


def _damaged(store: Store, key: str, error: Exception) -> DataError:
    run_files = re.sub(r"-\d+-\d+\.parquet$", "-*", key.rpartition("/")[2])
    return DataError(store.place(key), f"is not a whole table file ({' '.join(str(error).split())})",
                     f"delete {run_files} beside it and run the report job: the rows come back from the run's records")
