"""The records of a run's attempts, as parts of ``steps``, ``rank_steps`` and ``evaluations``.

Runs on: driver, within the claim of the run's tables.
Takes:   the attempts' record files, and the parts that are there.
Gives:   ``AttemptTables.load``: new parts with the rows that came since; those that a restart made void are gone.

A load that finds no rows for a table puts nothing, though it has read lines: the next one reads them again, until they are
SKIPPED_BYTES, or the attempt has ended. So a run that evaluates once a day has a handful of parts of ``evaluations`` a day.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipelines.lake.claims import Claim
from pipelines.lake.paths import Lake, RunFolder
from pipelines.lake.runs import AttemptState, RunState
from pipelines.track.carried import CARRIED, CARRIED_PARTS, carried_up_to
from pipelines.track.parts import (
    NO_LIMIT,
    Cursor,
    Noted,
    TablePart,
    keys_by_attempt,
    next_key,
    number_of,
    parts_beyond,
    put_part,
)
from pipelines.track.record_rows import Row, new_rows, to_table
from pipelines.track.totals import TOTALS, AttemptTotals, EvaluationTotals, totals_up_to

ATTEMPT_TABLES = ("steps", "rank_steps", "evaluations")
READ_BYTES = 32 * 1024**2  # of records held at once, over all ranks; what a part holds at most
SKIPPED_BYTES = 4 * 1024**2  # of lines without a row, which are read again at every load: 60 ms


def kept_steps(state: RunState, attempt: AttemptState) -> tuple[int, int]:
    """First and last step of an attempt that a restart did not take back: later attempts make the rest again."""
    later = [each.start_step for each in state.attempts if each.number > attempt.number]
    return (attempt.start_step + 1 if attempt is not state.attempts[0] else 0), min(later, default=NO_LIMIT)


class AttemptTables:
    """Of one run: its parts, each table listed once."""

    def __init__(self, lake: Lake, run: RunFolder, state: RunState, claim: Claim) -> None:
        self._lake, self._run, self._state, self._claim = lake, run, state, claim
        self._keys = {table: keys_by_attempt(lake, table, state.run_id) for table in ATTEMPT_TABLES}
        self._evaluated: set[tuple[int, str]] = set()  # step and split of the newest evaluations of the attempts before

    def load(self) -> None:
        """The oldest attempt first: no reader sees a step of two attempts."""
        for attempt in self._state.attempts:
            for table in ATTEMPT_TABLES:
                first, last = kept_steps(self._state, attempt)
                if table == "evaluations":
                    first = attempt.start_step  # it may make up for an evaluation that was missed
                self._load(table, attempt, first, last)
            evaluated = totals_up_to(self._lake, EvaluationTotals, self._keys["evaluations"].get(attempt.number, []))
            self._evaluated |= {(step, split) for split, step in evaluated.last_steps.items()}

    def _load(self, table: str, attempt: AttemptState, first: int, last: int) -> None:
        """Takes back what a restart made void, then adds the new lines, a bounded amount at a time."""
        keys = self._keys[table].setdefault(attempt.number, [])
        for key in reversed(parts_beyond(self._lake.store, keys, last)):  # so that those left are a beginning at any moment
            self._claim.check()
            self._lake.store.remove(key)
            keys.remove(key)
        written = moved = TablePart.of(self._lake.store, keys[-1]).cursor if keys else {}
        totals: AttemptTotals | None = None
        for found, moved in self._new_rows(table, attempt.number, written):
            rows = [row for row in found if first <= row["step"] <= last and not self._was_evaluated(table, row)]
            if rows or _bytes(moved) - _bytes(written) >= SKIPPED_BYTES:
                totals = self._put(table, attempt, last, rows, moved, totals)
                written = moved
        if moved != written and (attempt.ended_s is not None or attempt is not self._state.newest):
            self._put(table, attempt, last, [], moved, totals)

    def _put(self, table: str, attempt: AttemptState, last: int, rows: list[Row], moved: Cursor, totals: AttemptTotals | None
             ) -> AttemptTotals:
        """The next part. ``totals``: of those before, where they are known; comes back with this one's."""
        keys = self._keys[table][attempt.number]
        totals = totals_up_to(self._lake, TOTALS[table], keys) if totals is None else totals
        added = to_table(table, rows)
        totals.add(added)
        key = next_key(self._lake, table, self._state.run_id, attempt.number, keys, last)
        self._claim.check()
        put_part(self._lake.store, key, added, moved, totals.content(), self._carried(table, key, keys, added))
        keys.append(key)
        return totals

    def _carried(self, table: str, key: str, before: list[str], added: pa.Table) -> Noted | None:
        """What this part holds for all up to it, where it is one that does."""
        if table not in CARRIED or (number_of(key) + 1) % CARRIED_PARTS:
            return None
        carried = carried_up_to(self._lake, CARRIED[table], before)
        carried.add(added)
        return carried.content()

    def _new_rows(self, table: str, attempt: int, cursor: Cursor) -> Iterator[tuple[list[Row], Cursor]]:
        """Rows of the lines behind the cursor, piece by piece, and the cursor behind each piece."""
        files = self._run.live(attempt).records()
        if table != "rank_steps":
            files = {rank: path for rank, path in files.items() if rank == 0}  # whole-job figures are in rank 0's records
        while files:
            rows, moved = [], dict(cursor)
            for rank, path in files.items():
                found, moved[path.name] = new_rows(table, self._state.run_id, attempt, rank, path, cursor.get(path.name, 0),
                                                   READ_BYTES // len(files))
                rows += found
            if moved == cursor:
                return
            yield rows, moved
            cursor = moved

    def _was_evaluated(self, table: str, row: Row) -> bool:
        """An attempt begins with the step that the one before came to: what that one evaluated there, it did last."""
        return table == "evaluations" and (row["step"], row["split"]) in self._evaluated


def _bytes(cursor: Cursor) -> int:
    return sum(cursor.values())
