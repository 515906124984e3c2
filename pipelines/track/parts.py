"""The Parquet files of a metrics table: each is put once, never replaced, and knows what it and those before it have read.

Runs on: driver.
Takes:   rows, and a cursor: how many bytes of each record file the attempt's parts have taken in.
Gives:   part files that any Parquet reader can read at any moment.

A part is one object, visible by itself: ``<run>-<attempt>-<number>.parquet``. It holds rows of one load *and* the cursor behind
them, so both are published at once: a load that is killed has either happened or not, and repeating it adds nothing twice. It
also holds what all rows of the attempt up to its own come to (``totals.py``, and now and then ``carried.py``).

Nothing is added to a part and nothing taken out of it: a reader (Spark opens a file several times: length, footer, rows) finds it
as it was planned. Where a later attempt begins before the last step of an earlier one, the earlier one's parts that reach beyond
are removed whole, the newest first, and the load reads their records again, which are there as long as the run is, without the
void steps (``attempt_tables.py``). What it puts then has the last step that counts in its name,
``<run>-<attempt>-<number>-to<step>.parquet``: another name than any before, since that step only falls. A killed load leaves a
beginning of the attempt's parts, which is a state like any other: the next one goes on from its cursor.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.lake.paths import Lake
from pipelines.lake.schemas import arrow_schema
from pipelines.lake.store import Store

Cursor = dict[str, int]  # bytes taken in, by the name of the record file
COLUMNS_FILE = "00-columns.parquet"  # no rows: a table without runs has its columns
NO_LIMIT = 2**31 - 1  # of an attempt whose steps are all kept
_CURSOR_KEY, _TOTALS_KEY, _CARRIED_KEY = b"sparkring.cursor", b"sparkring.totals", b"sparkring.carried"
Noted = dict[str, Any]  # plain JSON values
_PLACE = re.compile(r"-(?P<attempt>\d{3,})-(?P<number>\d{5,})(-to\d+)?\.parquet")


@dataclass(frozen=True)
class TablePart:
    """One part file of a table: what it holds, without its rows."""

    key: str
    last_step: int  # the highest; -1 where it has no rows
    cursor: Cursor
    totals: Noted | None  # None: of an older version
    carried: Noted | None  # None: most have none

    @staticmethod
    def of(store: Store, key: str) -> TablePart:
        """Reads the file's footer.

        Raises:
            DataError: not a part file.
        """
        try:
            with store.open(key) as content:
                footer = pq.read_metadata(content)
            notes = footer.metadata
            return TablePart(key, _last_step(footer), json.loads(notes[_CURSOR_KEY]), json.loads(notes.get(_TOTALS_KEY, "null")),
                             json.loads(notes.get(_CARRIED_KEY, "null")))
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise _damaged(store, key, error) from error


def part_keys(lake: Lake, table: str, run_id: str) -> list[str]:
    """Part files of a run, in order; whole names are matched: one id may begin with another."""
    whole = re.compile(re.escape(run_id) + _PLACE.pattern)
    names = [(int(found["attempt"]), int(found["number"]), name) for name in lake.store.names(lake.table(table))
             if name.startswith(run_id) and (found := whole.fullmatch(name))]
    return [f"{lake.table(table)}/{name}" for *_, name in sorted(names)]


def keys_by_attempt(lake: Lake, table: str, run_id: str) -> dict[int, list[str]]:
    """The same, of each attempt that has any."""
    found: dict[int, list[str]] = {}
    for key in part_keys(lake, table, run_id):
        found.setdefault(_place(key)[0], []).append(key)
    return found


def next_key(lake: Lake, table: str, run_id: str, attempt: int, keys: list[str], last: int) -> str:
    """Behind ``keys``, those that the attempt has; ``last``: its highest step that counts, or NO_LIMIT."""
    number = number_of(keys[-1]) + 1 if keys else 0
    limit = "" if last == NO_LIMIT else f"-to{last}"
    return f"{lake.table(table)}/{run_id}-{attempt:03d}-{number:05d}{limit}.parquet"


def put_part(store: Store, key: str, rows: pa.Table, cursor: Cursor, totals: Noted | None = None, carried: Noted | None = None
             ) -> None:
    """``cursor`` and what follows: of this part's rows and all before them."""
    notes = {_CURSOR_KEY: json.dumps(cursor)}
    notes |= {name: json.dumps(each) for name, each in ((_TOTALS_KEY, totals), (_CARRIED_KEY, carried)) if each is not None}
    _put(store, key, rows.replace_schema_metadata(notes))


def parts_beyond(store: Store, keys: list[str], last: int) -> list[str]:
    """An attempt's parts from the first on that has steps above ``last``.

    Each says how far all up to it reach, so they are asked from the newest on; those of an older version do not, so all are.
    """
    kept = len(keys) if last != NO_LIMIT else 0
    while kept:
        part = TablePart.of(store, keys[kept - 1])
        if part.totals is None:
            reached = [TablePart.of(store, key).last_step for key in keys[:kept]]
            return keys[next((index for index, step in enumerate(reached) if step > last), kept):]
        if part.totals["last_step"] <= last:
            break
        kept -= 1
    return keys[kept:] if last != NO_LIMIT else []


def read_parts(lake: Lake, table: str, run_id: str, columns: list[str]) -> Iterator[pa.Table]:
    """Columns of all rows of one run, one part after the other: each has what one load adds."""
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


def ensure_columns(lake: Lake, table: str) -> None:
    """Gives the table's folder a file without rows, so that it can be read before the first run.

    It is the first by name, whose columns Spark takes for those of all: rows of an older version lack what is new, no more.
    """
    store, key, schema = lake.store, f"{lake.table(table)}/{COLUMNS_FILE}", arrow_schema(table)
    if store.facts(key) is None or pq.read_schema(io.BytesIO(store.read(key))).names != schema.names:
        _put(store, key, schema.empty_table())


def write_one_row(store: Store, key: str, row: pa.Table) -> None:
    """Replaces a file of a single row, unless it holds the very same.

    While only numbers change, every value keeps its place in the file, so that a reader holding the replaced file's
    footer still reads whole values.
    """
    content = io.BytesIO()
    pq.write_table(row, content)
    if store.facts(key) is None or store.read(key) != content.getvalue():
        store.put(key, content.getvalue())


def number_of(key: str) -> int:
    """Of a part, within its attempt."""
    return _place(key)[1]


def _put(store: Store, key: str, rows: pa.Table) -> None:
    """One row group, none where there are no rows."""
    content = io.BytesIO()
    with pq.ParquetWriter(content, rows.schema, compression="snappy") as writer:
        if rows.num_rows:
            writer.write_table(rows, row_group_size=rows.num_rows)
    store.clear_litter(key)  # the run's claim is held, so nobody is writing it
    store.put(key, content.getvalue())


def _of_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """With nulls for columns that an older version did not write."""
    return pa.table([rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
                     for field in schema], schema=schema)


def _last_step(footer: pq.FileMetaData) -> int:
    place = footer.schema.to_arrow_schema().get_field_index("step")
    return max((footer.row_group(i).column(place).statistics.max for i in range(footer.num_row_groups)), default=-1)


def _place(key: str) -> tuple[int, int]:
    """Of a part: whose it is, and its number."""
    found = _PLACE.search(key)
    if found is None:
        raise ValueError(f"{key} is no part's key")
    return int(found["attempt"]), int(found["number"])


def _damaged(store: Store, key: str, error: Exception) -> DataError:
    run_files = _PLACE.sub("-*", key.rpartition("/")[2])
    return DataError(store.place(key), f"is not a whole table file ({' '.join(str(error).split())})",
                     f"delete {run_files} beside it and run the report job: the rows come back from the run's records")
