"""Curves of any length in a bounded number of points, filled while the rows stream by.

Runs on: driver.
Takes:   values by step, in pieces and in any order.
Gives:   for each bucket of neighbouring steps the mean, the lowest and the highest value: a spike of a single step stays
         visible however long the run is.
"""

from __future__ import annotations

import numpy as np


class Buckets:
    """Steps 1 to ``last_step`` in at most ``points`` buckets of equally many steps (the last may be shorter)."""

    def __init__(self, last_step: int, points: int) -> None:
        last_step = max(0, last_step)
        self.width = max(1, -(-last_step // points))
        self.count = -(-last_step // self.width)
        self.ends_P = np.minimum(np.arange(1, self.count + 1) * self.width, last_step)  # where each ends

    def of(self, step_N: np.ndarray) -> np.ndarray:
        """The bucket of each step."""
        return (step_N.astype(np.int64) - 1) // self.width


class Curve:
    """One value a step; steps without a finite value leave no trace."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._low_P, self._high_P = np.full(buckets.count, np.inf), np.full(buckets.count, -np.inf)
        self._sum_P, self._weight_P = np.zeros(buckets.count), np.zeros(buckets.count)

    def add(self, step_N: np.ndarray, value_N: np.ndarray, weight_N: np.ndarray | None = None) -> None:
        """Takes more values; the mean of a bucket is weighted (1 each where no weights are given)."""
        finite_N = np.isfinite(value_N)
        bucket_N, value_N = self._buckets.of(step_N[finite_N]), value_N[finite_N]
        weight_N = np.ones(len(value_N)) if weight_N is None else weight_N[finite_N]
        np.minimum.at(self._low_P, bucket_N, value_N)
        np.maximum.at(self._high_P, bucket_N, value_N)
        self._sum_P += np.bincount(bucket_N, value_N * weight_N, self._buckets.count)
        self._weight_P += np.bincount(bucket_N, weight_N, self._buckets.count)

    @property
    def _there(self) -> np.ndarray:
        return self._weight_P > 0

    @property
    def single(self) -> bool:
        """Whether each point is one step."""
        return self._buckets.width == 1

    @property
    def steps(self) -> np.ndarray:
        """The last step of each bucket that has a value; what follows has one value for each of these."""
        return self._buckets.ends_P[self._there]

    @property
    def means(self) -> np.ndarray:
        return self._sum_P[self._there] / self._weight_P[self._there]

    @property
    def lows(self) -> np.ndarray:
        return self._low_P[self._there]

    @property
    def highs(self) -> np.ndarray:
        return self._high_P[self._there]


class HighestByRank:
    """The highest value of each rank in each bucket, and across ranks the highest and the median of these."""

    def __init__(self, num_ranks: int, buckets: Buckets) -> None:
        self._buckets = buckets
        self._high_RP = np.full((num_ranks, buckets.count), -np.inf)

    def add(self, rank_N: np.ndarray, step_N: np.ndarray, value_N: np.ndarray) -> None:
        np.maximum.at(self._high_RP.reshape(-1), rank_N * self._buckets.count + self._buckets.of(step_N), value_N)

    @property
    def _there(self) -> np.ndarray:
        return np.isfinite(self._high_RP).any(axis=0)

    @property
    def steps(self) -> np.ndarray:
        return self._buckets.ends_P[self._there]

    @property
    def highest(self) -> np.ndarray:
        return self._high_RP[:, self._there].max(axis=0)

    @property
    def median(self) -> np.ndarray:
        """Over the ranks that have a value there."""
        high_RP = self._high_RP[:, self._there]
        return np.nanmedian(np.where(np.isfinite(high_RP), high_RP, np.nan), axis=0)

    @property
    def peaks(self) -> np.ndarray:
        """Each rank's highest of all; -inf where it has none."""
        return self._high_RP.max(axis=1, initial=-np.inf)
