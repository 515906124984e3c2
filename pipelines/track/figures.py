"""Figures of a run, however long: what its attempts came to, their curves, each rank's share.

Runs on: driver.
Takes:   what the newest parts of each attempt of ``steps`` and ``rank_steps`` carry for all before them (``totals.py``,
         ``carried.py``); rows of ``evaluations``.
Gives:   numbers that the table ``runs``, the summary and the report share. Memory for one part, whatever the length of the run.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.metric_facts import METRIC_NAMES
from pipelines.lake.paths import Lake
from pipelines.track.carried import RankSums, StepCurves, carried_up_to
from pipelines.track.curves import Curve
from pipelines.track.parts import keys_by_attempt, read_rows
from pipelines.track.totals import LAST_LOSS_STEPS, EvaluationTotals, StepTotals, totals_up_to


class RunTotals:
    """Of all steps that a run has kept."""

    def __init__(self, by_attempt: Mapping[int, StepTotals]) -> None:
        self._by_attempt: defaultdict[int, StepTotals] = defaultdict(StepTotals, by_attempt)

    @staticmethod
    def of(lake: Lake, run_id: str) -> RunTotals:
        by_attempt = keys_by_attempt(lake, "steps", run_id)
        return RunTotals({attempt: totals_up_to(lake, StepTotals, keys) for attempt, keys in by_attempt.items()})

    def add(self, rows: pa.Table) -> None:
        """Rows of any attempts."""
        for attempt in pc.unique(rows["attempt"]).to_pylist():
            self._by_attempt[attempt].add(rows.filter(pc.equal(rows["attempt"], attempt)))

    @property
    def _attempts(self) -> list[StepTotals]:
        return [self._by_attempt[attempt] for attempt in sorted(self._by_attempt) if self._by_attempt[attempt].steps]

    @property
    def num_steps(self) -> int:
        return sum(each.steps for each in self._attempts)

    @property
    def last_step(self) -> int:
        return max((each.last_step for each in self._attempts), default=0)

    @property
    def units(self) -> int:
        return sum(each.units for each in self._attempts)

    @property
    def first_loss(self) -> float | None:
        return next((each.first_loss for each in self._attempts), None)

    @property
    def last_loss(self) -> float | None:
        """The mean of the last few."""
        last: deque[float] = deque(maxlen=LAST_LOSS_STEPS)
        for each in self._attempts:
            last.extend(each.last_losses)
        return float(np.mean(last)) if last else None

    @property
    def newest_s(self) -> float | None:
        """Unix time of the newest step."""
        return max((each.newest_s for each in self._attempts if each.newest_s is not None), default=None)

    @property
    def steady_units_per_s(self) -> float | None:
        """Units over seconds of training without each attempt's first steps (at most half of them)."""
        units, seconds = (sum(part) for part in zip((0.0, 0.0), *(each.steady for each in self._attempts), strict=True))
        return units / seconds if seconds > 0 else None


class StepFigures(RunTotals):
    """The same with their curves."""

    def __init__(self, by_attempt: Mapping[int, StepTotals]) -> None:
        super().__init__(by_attempt)
        self._curves = StepCurves()

    @staticmethod
    def of(lake: Lake, run_id: str) -> StepFigures:
        by_attempt = keys_by_attempt(lake, "steps", run_id)
        figures = StepFigures({attempt: totals_up_to(lake, StepTotals, keys) for attempt, keys in by_attempt.items()})
        for keys in by_attempt.values():
            figures._curves.join(carried_up_to(lake, StepCurves, keys))
        return figures

    def add(self, rows: pa.Table) -> None:
        super().add(rows)
        self._curves.add(rows)

    def curve(self, name: str) -> Curve:
        """One of ``StepCurves.NAMES``."""
        return self._curves.of[name]


class RankFigures(RankSums):
    """Of all attempts of a run together."""

    @staticmethod
    def of(lake: Lake, run_id: str) -> RankFigures:
        figures = RankFigures()
        for keys in keys_by_attempt(lake, "rank_steps", run_id).values():
            figures.join(carried_up_to(lake, RankSums, keys))
        return figures


def newest_validation_loss(lake: Lake, run_id: str) -> float | None:
    """Of the evaluations as training went on."""
    by_attempt = keys_by_attempt(lake, "evaluations", run_id)
    found = [totals_up_to(lake, EvaluationTotals, keys).validation for keys in by_attempt.values()]
    return max((each for each in found if each is not None), default=(0, None), key=lambda each: each[0])[1]


def evaluations_in_order(lake: Lake, run_id: str, split: str = "validation") -> list[dict[str, Any]]:
    """Evaluations of one split by step: step, loss, samples, units, seconds, and by name the metrics that the task gave."""
    rows = read_rows(lake, "evaluations", run_id, ["split", "step", "loss", "samples", "units", "seconds", *METRIC_NAMES])
    rows = rows.drop_columns([name for name in METRIC_NAMES if rows[name].null_count == len(rows)])
    found = [row for row in rows.sort_by("step").to_pylist() if row.pop("split") == split]
    return [row for row in found if row["loss"] is not None]
