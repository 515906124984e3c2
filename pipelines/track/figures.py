"""Figures of a run from its rows, however many: curves, each rank's share, and what ``totals.py`` has.

Runs on: driver.
Takes:   rows of ``steps``, ``rank_steps`` and ``evaluations``, one part after the other.
Gives:   numbers that the table ``runs``, the summary and the report share. Memory for one part, and for at most
         CURVE_POINTS points a curve, whatever the length of the run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.lake.metric_facts import METRIC_NAMES
from pipelines.lake.paths import Lake
from pipelines.track.curves import Buckets, Curve, HighestByRank
from pipelines.track.parts import highest, read_parts, read_rows
from pipelines.track.totals import RunTotals

CURVE_POINTS = 320  # more than the widest chart can show
STEP_COLUMNS = ["attempt", "step", "loss", "learning_rate", "gradient_norm", "units", "seconds", "time"]
RANK_SUMS = ("units", "seconds", "data_wait_s", "compute_s", "communication_s", "pipeline_wait_s", "averaging_s")


class StepFigures(RunTotals):
    """What the kept steps of one run come to, with their curves; ``add`` takes them in their order."""

    def __init__(self, last_step: int) -> None:
        """``last_step``: no later one will be added."""
        super().__init__({})
        buckets = Buckets(last_step, CURVE_POINTS)
        self.loss, self.learning_rate, self.gradient_norm, self.units_per_s = (Curve(buckets) for _ in range(4))

    @staticmethod
    def of(lake: Lake, run_id: str) -> StepFigures:
        """Of all rows of a run."""
        figures = StepFigures(highest(lake, "steps", run_id, "step"))
        for rows in read_parts(lake, "steps", run_id, STEP_COLUMNS):
            figures.add(rows)
        return figures

    def add(self, rows: pa.Table) -> None:
        """``rows`` hold STEP_COLUMNS; a missing number is no point of its curve and counts as no units and no time."""
        super().add(rows)
        step_N = rows["step"].to_numpy()
        loss_N, rate_N, norm_N, units_N, seconds_N = (
            rows[name].to_numpy().astype(np.float64)
            for name in ("loss", "learning_rate", "gradient_norm", "units", "seconds"))
        units_N, seconds_N = np.nan_to_num(units_N), np.nan_to_num(seconds_N)
        self.loss.add(step_N, loss_N)
        self.learning_rate.add(step_N, rate_N)
        self.gradient_norm.add(step_N, norm_N)
        timed = seconds_N > 0
        self.units_per_s.add(step_N[timed], units_N[timed] / seconds_N[timed], seconds_N[timed])


class RankFigures:
    """Where each rank's time went, and the memory it held."""

    def __init__(self, num_ranks: int, last_step: int) -> None:
        self.sums_R = {name: np.zeros(num_ranks) for name in RANK_SUMS}
        self.steps_R = np.zeros(num_ranks, dtype=np.int64)
        self.memory_bytes = HighestByRank(num_ranks, Buckets(last_step, CURVE_POINTS // 2))

    @staticmethod
    def of(lake: Lake, run_id: str) -> RankFigures:
        """Of all rows of a run."""
        last_rank, last_step = (highest(lake, "rank_steps", run_id, column) for column in ("rank", "step"))
        figures = RankFigures(last_rank + 1, last_step)
        for rows in read_parts(lake, "rank_steps", run_id, ["rank", "step", "memory_bytes", *RANK_SUMS]):
            figures.add(rows)
        return figures

    def add(self, rows: pa.Table) -> None:
        """``rows`` hold rank, step, memory_bytes and RANK_SUMS, in any order; missing numbers count as nothing."""
        rank_N, num_ranks = rows["rank"].to_numpy(), len(self.steps_R)
        self.steps_R += np.bincount(rank_N, minlength=num_ranks)
        for name, sum_R in self.sums_R.items():
            sum_R += np.bincount(rank_N, np.nan_to_num(rows[name].to_numpy()), num_ranks)
        memory_N = rows["memory_bytes"].to_numpy().astype(np.float64)
        held = np.isfinite(memory_N)
        self.memory_bytes.add(rank_N[held], rows["step"].to_numpy()[held], memory_N[held])


def evaluations_in_order(lake: Lake, run_id: str, split: str = "validation") -> list[dict[str, Any]]:
    """Evaluations of one split by step: step, loss, samples, units, seconds, and by name the metrics that the task gave."""
    rows = read_rows(lake, "evaluations", run_id, ["split", "step", "loss", "samples", "units", "seconds", *METRIC_NAMES])
    rows = rows.drop_columns([name for name in METRIC_NAMES if rows[name].null_count == len(rows)])
    found = [row for row in rows.sort_by("step").to_pylist() if row.pop("split") == split]
    return [row for row in found if row["loss"] is not None]
