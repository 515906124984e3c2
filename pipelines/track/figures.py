"""Figures of a run from its rows: final loss, tokens, steady throughput.

Runs on: driver.
Takes:   rows of ``steps`` and ``evaluations``.
Gives:   numbers that the table ``runs``, the summary and the report share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.tables.paths import Lake
from pipelines.track.parts import read_rows

STEP_COLUMNS = ["attempt", "step", "loss", "learning_rate", "gradient_norm", "tokens", "seconds", "time"]
LAST_LOSS_STEPS = 10  # one batch's loss is noisy: the final train loss is the mean of this many
START_UP_STEPS = 5  # of each attempt: caches and allocators are still cold


@dataclass(frozen=True)
class Steps:
    """The kept steps of one run, in order. All arrays have one value per step."""

    attempt: np.ndarray
    step: np.ndarray
    loss: np.ndarray
    learning_rate: np.ndarray
    gradient_norm: np.ndarray
    tokens_each: np.ndarray
    seconds: np.ndarray
    newest_s: float | None  # Unix time of the newest step

    @staticmethod
    def of(rows: pa.Table) -> Steps:
        """``rows`` holds STEP_COLUMNS in any order of rows; missing values become NaN (tokens: 0)."""
        rows = rows.sort_by("step")
        numbers = {name: rows[name].to_numpy().astype(np.float64)
                   for name in ("loss", "learning_rate", "gradient_norm", "tokens", "seconds")}
        times = rows["time"].cast(pa.int64()).to_numpy()
        return Steps(rows["attempt"].to_numpy(), rows["step"].to_numpy(), numbers["loss"], numbers["learning_rate"],
                     numbers["gradient_norm"], np.nan_to_num(numbers["tokens"]), np.nan_to_num(numbers["seconds"]),
                     float(times.max()) / 1e6 if len(times) else None)

    def __len__(self) -> int:
        return len(self.step)

    @property
    def last_step(self) -> int:
        return int(self.step[-1]) if len(self) else 0

    @property
    def first_loss(self) -> float | None:
        return float(self.loss[0]) if len(self) else None

    @property
    def last_loss(self) -> float | None:
        return float(self.loss[-LAST_LOSS_STEPS:].mean()) if len(self) else None

    @property
    def tokens(self) -> int:
        return int(self.tokens_each.sum())

    @property
    def steady_tokens_per_s(self) -> float | None:
        """Tokens over seconds of training without each attempt's first steps (at most half of them)."""
        steady = np.zeros(len(self), dtype=bool)
        for attempt in np.unique(self.attempt):
            places = np.flatnonzero(self.attempt == attempt)
            steady[places[min(START_UP_STEPS, len(places) // 2):]] = True
        seconds = float(self.seconds[steady].sum())
        return float(self.tokens_each[steady].sum()) / seconds if seconds > 0 else None


def evaluations_in_order(lake: Lake, run_id: str, split: str = "validation") -> list[dict[str, Any]]:
    """Evaluations of one split by step: step, loss, samples, tokens, seconds."""
    rows = read_rows(lake, "evaluations", run_id, ["split", "step", "loss", "samples", "tokens", "seconds"])
    found = [row for row in rows.sort_by("step").to_pylist() if row.pop("split") == split]
    return [row for row in found if row["loss"] is not None]
