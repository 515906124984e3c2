"""What the steps of a run have come to, carried on from load to load, so that no load reads rows of an earlier one.

Runs on: driver.
Takes:   rows of ``steps``, each once and in their order.
Gives:   ``StepTotals`` of an attempt, which each part of the table keeps for all rows up to its own (``parts.py``);
         ``RunTotals``, of the attempts together.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.paths import Lake
from pipelines.track.parts import TablePart, attempt_of, part_keys, read_part

LAST_LOSS_STEPS = 10  # one batch's loss is noisy: the final train loss is the mean of this many
START_UP_STEPS = 5  # of each attempt: caches and allocators are still cold
TOTALLED = ["attempt", "step", "loss", "units", "seconds", "time"]


@dataclass
class StepTotals:
    """Of the steps of one attempt, or of its first so many."""

    steps: int = 0
    last_step: int = 0
    units: int = 0
    seconds: float = 0.0
    first: list[tuple[int, float]] = field(default_factory=list)  # units and seconds of each of the first steps
    first_loss: float | None = None
    last_losses: list[float] = field(default_factory=list)
    newest_s: float | None = None  # Unix time of the newest step

    def add(self, rows: pa.Table) -> None:
        """``rows`` hold TOTALLED; a missing number counts as no units and no time."""
        if not rows.num_rows:
            return
        loss_N = rows["loss"].to_numpy().astype(np.float64)
        units_N, seconds_N = (np.nan_to_num(rows[name].to_numpy().astype(np.float64)) for name in ("units", "seconds"))
        missing = START_UP_STEPS - len(self.first)
        self.first += zip(units_N[:missing].astype(int).tolist(), seconds_N[:missing].tolist(), strict=True)
        self.steps += rows.num_rows
        self.last_step = max(self.last_step, pc.max(rows["step"]).as_py())
        self.units += int(units_N.sum())
        self.seconds += float(seconds_N.sum())
        self.first_loss = float(loss_N[0]) if self.first_loss is None else self.first_loss
        self.last_losses = [*self.last_losses, *loss_N[-LAST_LOSS_STEPS:].tolist()][-LAST_LOSS_STEPS:]
        self.newest_s = max(self.newest_s or 0.0, (pc.max(rows["time"].cast(pa.int64())).as_py() or 0) / 1e6)

    @property
    def steady(self) -> tuple[float, float]:
        """Units and seconds without the first steps (at most half of all)."""
        left_out = self.first[:self.steps // 2]
        return self.units - sum(units for units, _ in left_out), self.seconds - sum(seconds for _, seconds in left_out)

    def content(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of_content(content: Mapping[str, Any]) -> StepTotals:
        return StepTotals(**{**content, "first": [(units, seconds) for units, seconds in content["first"]]})


def totals_up_to(lake: Lake, keys: list[str]) -> StepTotals:
    """After the last of an attempt's parts of ``steps``; the rows are read where another version wrote it, without."""
    content = TablePart.of(lake.store, keys[-1]).totals if keys else None
    if content is not None:
        return StepTotals.of_content(content)
    totals = StepTotals()
    for key in keys:
        totals.add(read_part(lake, "steps", key, TOTALLED))
    return totals


class RunTotals:
    """Of all steps that a run has kept."""

    def __init__(self, by_attempt: Mapping[int, StepTotals]) -> None:
        self._by_attempt: defaultdict[int, StepTotals] = defaultdict(StepTotals, by_attempt)

    @staticmethod
    def of(lake: Lake, run_id: str) -> RunTotals:
        by_attempt = groupby(part_keys(lake, "steps", run_id), attempt_of)
        return RunTotals({attempt: totals_up_to(lake, [*keys]) for attempt, keys in by_attempt})

    def add(self, rows: pa.Table) -> None:
        """``rows`` hold TOTALLED, of any attempts."""
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
