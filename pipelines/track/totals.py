"""What an attempt has come to, in few numbers, carried on from part to part: no load reads the rows of earlier ones.

Runs on: driver.
Takes:   rows of ``steps``, ``rank_steps`` or ``evaluations``, each once.
Gives:   ``StepTotals``, ``RankStepTotals``, ``EvaluationTotals`` of an attempt, which each part of the table keeps for all rows
         up to its own and with them (``parts.py``). What takes more than a few numbers: ``carried.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lake.paths import Lake
from pipelines.track.parts import TablePart, read_part

LAST_LOSS_STEPS = 10  # one batch's loss is noisy: the final train loss is the mean of this many
START_UP_STEPS = 5  # of each attempt: caches and allocators are still cold


class AttemptTotals(Protocol):
    """Of the rows of one attempt in one table."""

    TABLE: ClassVar[str]
    COLUMNS: ClassVar[list[str]]  # that ``add`` needs

    def add(self, rows: pa.Table) -> None:
        """Takes more rows."""
        ...

    def content(self) -> dict[str, Any]:
        """Plain JSON values."""
        ...

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> Self:
        """The same again."""
        ...


TotalsT = TypeVar("TotalsT", bound=AttemptTotals)


@dataclass
class StepTotals:
    """Of the steps of one attempt, or of its first so many, in their order."""

    TABLE: ClassVar[str] = "steps"
    COLUMNS: ClassVar[list[str]] = ["attempt", "step", "loss", "units", "seconds", "time"]

    steps: int = 0
    last_step: int = 0
    units: int = 0
    seconds: float = 0.0
    first: list[tuple[int, float]] = field(default_factory=list)  # units and seconds of each of the first steps
    first_loss: float | None = None
    last_losses: list[float] = field(default_factory=list)
    newest_s: float | None = None  # Unix time of the newest step

    def add(self, rows: pa.Table) -> None:
        """A missing number counts as no units and no time."""
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

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> Self:
        return cls(**{**content, "first": [(units, seconds) for units, seconds in content["first"]]})


@dataclass
class RankStepTotals:
    """How far the steps of an attempt's ranks came."""

    TABLE: ClassVar[str] = "rank_steps"
    COLUMNS: ClassVar[list[str]] = ["step"]

    last_step: int = 0

    def add(self, rows: pa.Table) -> None:
        self.last_step = max(self.last_step, pc.max(rows["step"]).as_py() or 0)

    def content(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> Self:
        return cls(**content)


class EvaluationTotals:
    """How far evaluations came."""

    TABLE: ClassVar[str] = "evaluations"
    COLUMNS: ClassVar[list[str]] = ["step", "split", "loss"]

    def __init__(self) -> None:
        self.last_steps: dict[str, int] = {}  # by split
        self.validation: tuple[int, float] | None = None  # step and loss of the newest one of that split that has one

    @property
    def last_step(self) -> int:
        return max(self.last_steps.values(), default=0)

    def add(self, rows: pa.Table) -> None:
        for step, split, loss in zip(*(rows[name].to_pylist() for name in self.COLUMNS), strict=True):
            self.last_steps[split] = max(step, self.last_steps.get(split, 0))
            if split == "validation" and loss is not None and (self.validation is None or step >= self.validation[0]):
                self.validation = step, loss

    def content(self) -> dict[str, Any]:
        return {"last_step": self.last_step, "last_steps": self.last_steps, "validation": self.validation}

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> Self:
        totals = cls()
        totals.last_steps, validation = dict(content["last_steps"]), content["validation"]
        totals.validation = None if validation is None else (validation[0], validation[1])
        return totals


TOTALS: dict[str, type[AttemptTotals]] = {"steps": StepTotals, "rank_steps": RankStepTotals, "evaluations": EvaluationTotals}


def totals_up_to(lake: Lake, kind: type[TotalsT], keys: list[str]) -> TotalsT:
    """After the last of an attempt's parts; the rows are read where another version wrote it, without."""
    content = TablePart.of(lake.store, keys[-1]).totals if keys else None
    if content is not None:
        return kind.of_content(content)
    totals = kind()
    for key in keys:
        totals.add(read_part(lake, kind.TABLE, key, kind.COLUMNS))
    return totals
