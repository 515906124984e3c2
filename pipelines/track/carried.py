"""What a report draws of an attempt's steps and ranks, carried on in the tables' parts: no report reads all rows.

Runs on: driver.
Takes:   rows of ``steps`` or ``rank_steps``, each once.
Gives:   ``StepCurves`` and ``RankSums`` of an attempt. Their size does not depend on the length of the run: at 64 ranks at most
         130 and 260 KB, packed, with the second copy that a Parquet footer holds of what one adds to it.

That is more than the rows of a load in a young run, so only every CARRIED_PARTS-th part holds them, for all rows up to its own
and with them: parts 31, 63, 95. What parts behind the newest of these hold is read from their rows. Sums differ from those over
the rows by rounding alone, all else is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from pipelines.lake.paths import Lake
from pipelines.track.curves import Curve, HighestByRank, packed, unpacked
from pipelines.track.parts import TablePart, read_part
from pipelines.track.totals import AttemptTotals, TotalsT

CARRIED_PARTS = 32
CURVE_POINTS = 320  # a chart has half of them at least, once a run is that long
RANK_SUMS = ("units", "seconds", "data_wait_s", "compute_s", "communication_s", "pipeline_wait_s", "averaging_s")


class StepCurves:
    """What is drawn of steps."""

    TABLE: ClassVar[str] = "steps"
    COLUMNS: ClassVar[list[str]] = ["step", "loss", "learning_rate", "gradient_norm", "units", "seconds"]
    NAMES = ("loss", "learning_rate", "gradient_norm", "units_per_s")

    def __init__(self) -> None:
        self.of = {name: Curve(CURVE_POINTS) for name in self.NAMES}

    def add(self, rows: pa.Table) -> None:
        """A missing number is no point of its curve."""
        step_N = rows["step"].to_numpy()
        for name in ("loss", "learning_rate", "gradient_norm"):
            self.of[name].add(step_N, _floats(rows, name))
        units_N, seconds_N = (np.nan_to_num(_floats(rows, name)) for name in ("units", "seconds"))
        speed_N = np.divide(units_N, seconds_N, out=np.full(len(step_N), np.nan), where=seconds_N > 0)
        self.of["units_per_s"].add(step_N, speed_N, seconds_N)

    def join(self, other: StepCurves) -> None:
        for name, curve in self.of.items():
            curve.join(other.of[name])

    def content(self) -> dict[str, Any]:
        return {name: curve.content() for name, curve in self.of.items()}

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> Self:
        curves = cls()
        curves.of = {name: Curve.of_content(content[name], CURVE_POINTS) for name in StepCurves.NAMES}
        return curves


class RankSums:
    """Where each rank's time went, and the memory it held."""

    TABLE: ClassVar[str] = "rank_steps"
    COLUMNS: ClassVar[list[str]] = ["rank", "step", "memory_bytes", *RANK_SUMS]

    def __init__(self) -> None:
        self.steps_R = np.zeros(0)
        self.sums_R = {name: np.zeros(0) for name in RANK_SUMS}
        self.memory_bytes = HighestByRank(CURVE_POINTS // 2)

    def add(self, rows: pa.Table) -> None:
        """Rows in any order; missing numbers count as nothing."""
        rank_N, step_N = rows["rank"].to_numpy(), rows["step"].to_numpy()
        num_ranks = max(len(self.steps_R), int(rank_N.max(initial=-1)) + 1)
        self.steps_R = _sum(self.steps_R, np.bincount(rank_N, minlength=num_ranks))
        for name, sum_R in self.sums_R.items():
            self.sums_R[name] = _sum(sum_R, np.bincount(rank_N, np.nan_to_num(_floats(rows, name)), num_ranks))
        self.memory_bytes.add(rank_N, step_N, _floats(rows, "memory_bytes"))

    def join(self, other: RankSums) -> None:
        """Takes what another attempt came to."""
        self.steps_R = _sum(self.steps_R, other.steps_R)
        self.sums_R = {name: _sum(sum_R, other.sums_R[name]) for name, sum_R in self.sums_R.items()}
        self.memory_bytes.join(other.memory_bytes)

    def content(self) -> dict[str, Any]:
        sums = np.stack([self.steps_R, *self.sums_R.values()])
        return {"ranks": len(self.steps_R), "sums": packed(sums), "memory": self.memory_bytes.content()}

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> Self:
        found = cls()
        found.steps_R, *sums = unpacked(content["sums"], 1 + len(RANK_SUMS), content["ranks"])
        found.sums_R = dict(zip(RANK_SUMS, sums, strict=True))
        found.memory_bytes = HighestByRank.of_content(content["memory"], CURVE_POINTS // 2)
        return found


CARRIED: dict[str, type[AttemptTotals]] = {"steps": StepCurves, "rank_steps": RankSums}


def carried_up_to(lake: Lake, kind: type[TotalsT], keys: list[str]) -> TotalsT:
    """After the last of an attempt's parts; of one that an older version wrote, all rows are read."""
    found, of_rows = kind(), []
    for key in reversed(keys):
        content = TablePart.of(lake.store, key).carried
        if content is not None:
            found = kind.of_content(content)
            break
        of_rows.append(key)
    for key in reversed(of_rows):
        found.add(read_part(lake, kind.TABLE, key, kind.COLUMNS))
    return found


def _sum(mine_R: np.ndarray, theirs_R: np.ndarray) -> np.ndarray:
    """Of two that may have different numbers of ranks."""
    total_R = np.zeros(max(len(mine_R), len(theirs_R)))
    total_R[:len(mine_R)] += mine_R
    total_R[:len(theirs_R)] += theirs_R
    return total_R


def _floats(rows: pa.Table, name: str) -> np.ndarray:
    return rows[name].to_numpy().astype(np.float64)
