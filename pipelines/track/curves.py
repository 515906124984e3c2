"""Curves of any length in a bounded number of points, filled while the rows stream by.

Runs on: driver.
Takes:   values by step, in pieces and in any order, for as long as a run goes on; or what an earlier curve came to.
Gives:   for each bucket of neighbouring steps the mean, the lowest and the highest value: a spike of a single step stays
         visible however long the run is.

A bucket has the least power of two of steps by which the highest step is within the points, and the first one begins with step 1.
So where a curve grows beyond its points, each two neighbours become one, and a curve that was carried on piece by piece, or put
together from several, is the very curve of all steps at once. Of 4 points, after step 4 and after step 5:

    steps   1  2  3  4           1-2  3-4  5-5
    highs   7  9  8  6             9    8    5
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

_EMPTY = {np.minimum: np.inf, np.maximum: -np.inf, np.add: 0.0}  # what changes nothing that it is joined with


class Buckets:
    """Steps 1 to ``last_step`` in at most ``points`` buckets of equally many steps (the last may be shorter)."""

    def __init__(self, last_step: int, points: int) -> None:
        self.last_step, self.points, self.width = max(0, last_step), points, 1
        while self.width * points < last_step:
            self.width *= 2
        self.count = -(-self.last_step // self.width)

    def ends(self) -> np.ndarray:
        """The last step of each."""
        return np.minimum(np.arange(1, self.count + 1) * self.width, self.last_step)

    def of(self, step_N: np.ndarray) -> np.ndarray:
        """The bucket of each step."""
        return (step_N.astype(np.int64) - 1) // self.width

    def reaching(self, step_N: np.ndarray) -> Buckets:
        """Those that have room for these steps as well."""
        return Buckets(max(self.last_step, int(step_N.max(initial=0))), self.points)

    def filled(self, value_P: np.ndarray, given: Buckets, join: np.ufunc) -> np.ndarray:
        """``value_P``, one for each bucket of ``given`` (no wider ones) on its last axis, as one for each of these."""
        each = self.width // given.width
        padded_P = np.full((*value_P.shape[:-1], self.count * each), _EMPTY[join])
        padded_P[..., :value_P.shape[-1]] = value_P
        joined_P: np.ndarray = join.reduce(padded_P.reshape(*value_P.shape[:-1], self.count, each), axis=-1)
        return joined_P


class Curve:
    """One value a step; steps without a finite value leave no trace."""

    _JOINS: tuple[np.ufunc, ...] = (np.minimum, np.maximum, np.add, np.add)  # lowest, highest, weighted sum, weights

    def __init__(self, points: int) -> None:
        self._buckets = Buckets(0, points)
        self._values: list[np.ndarray] = [np.zeros(0)] * len(self._JOINS)

    def add(self, step_N: np.ndarray, value_N: np.ndarray, weight_N: np.ndarray | None = None) -> None:
        """Takes more values; the mean of a bucket is weighted (1 each where no weights are given)."""
        self._widen(self._buckets.reaching(step_N))
        finite_N, count = np.isfinite(value_N), self._buckets.count
        bucket_N, value_N = self._buckets.of(step_N[finite_N]), value_N[finite_N]
        weight_N = np.ones(len(value_N)) if weight_N is None else weight_N[finite_N]
        low_P, high_P, sum_P, weight_P = self._values
        np.minimum.at(low_P, bucket_N, value_N)
        np.maximum.at(high_P, bucket_N, value_N)
        sum_P += np.bincount(bucket_N, value_N * weight_N, count)
        weight_P += np.bincount(bucket_N, weight_N, count)

    def join(self, other: Curve) -> None:
        """Takes all values of a curve of other steps."""
        self._widen(self._buckets.reaching(np.array([other._buckets.last_step])))
        self._values = [join(mine, self._buckets.filled(theirs, other._buckets, join))
                        for mine, theirs, join in zip(self._values, other._values, self._JOINS, strict=True)]

    def content(self) -> dict[str, Any]:
        return {"last_step": self._buckets.last_step, "values": packed(np.stack(self._values))}

    @staticmethod
    def of_content(content: Mapping[str, Any], points: int) -> Curve:
        curve = Curve(points)
        curve._buckets = Buckets(content["last_step"], points)
        curve._values = [*unpacked(content["values"], len(Curve._JOINS), curve._buckets.count)]
        return curve

    def _widen(self, buckets: Buckets) -> None:
        if buckets.last_step > self._buckets.last_step:
            self._values = [buckets.filled(value_P, self._buckets, join)
                            for value_P, join in zip(self._values, self._JOINS, strict=True)]
            self._buckets = buckets

    @property
    def _there(self) -> np.ndarray:
        there: np.ndarray = self._values[3] > 0
        return there

    @property
    def single(self) -> bool:
        """Whether each point is one step."""
        return self._buckets.width == 1

    @property
    def steps(self) -> np.ndarray:
        """The last step of each bucket that has a value; what follows has one value for each of these."""
        return self._buckets.ends()[self._there]

    @property
    def means(self) -> np.ndarray:
        _, _, sum_P, weight_P = self._values
        means: np.ndarray = sum_P[self._there] / weight_P[self._there]
        return means

    @property
    def lows(self) -> np.ndarray:
        return self._values[0][self._there]

    @property
    def highs(self) -> np.ndarray:
        return self._values[1][self._there]


class HighestByRank:
    """The highest value of each rank in each bucket, and across ranks the highest and the median of these."""

    def __init__(self, points: int) -> None:
        self._buckets = Buckets(0, points)
        self._high_RP = np.zeros((0, 0))

    def add(self, rank_N: np.ndarray, step_N: np.ndarray, value_N: np.ndarray) -> None:
        """Values that are not finite leave no trace."""
        self._widen(int(rank_N.max(initial=-1)) + 1, self._buckets.reaching(step_N))
        held_N = np.isfinite(value_N)
        place_N = rank_N[held_N].astype(np.int64) * self._buckets.count + self._buckets.of(step_N[held_N])
        np.maximum.at(self._high_RP.reshape(-1), place_N, value_N[held_N])

    def join(self, other: HighestByRank) -> None:
        """Takes all that another one holds."""
        self._widen(len(other._high_RP), self._buckets.reaching(np.array([other._buckets.last_step])))
        theirs_RP = self._buckets.filled(other._high_RP, other._buckets, np.maximum)
        np.maximum(self._high_RP[:len(theirs_RP)], theirs_RP, out=self._high_RP[:len(theirs_RP)])

    def content(self) -> dict[str, Any]:
        return {"last_step": self._buckets.last_step, "ranks": len(self._high_RP), "values": packed(self._high_RP)}

    @staticmethod
    def of_content(content: Mapping[str, Any], points: int) -> HighestByRank:
        found = HighestByRank(points)
        found._buckets = Buckets(content["last_step"], points)
        found._high_RP = unpacked(content["values"], content["ranks"], found._buckets.count)
        return found

    def _widen(self, num_ranks: int, buckets: Buckets) -> None:
        missing = num_ranks - len(self._high_RP)
        if missing > 0 or buckets.last_step > self._buckets.last_step:
            high_RP = buckets.filled(self._high_RP, self._buckets, np.maximum)
            self._high_RP = np.pad(high_RP, ((0, max(0, missing)), (0, 0)), constant_values=-np.inf)
            self._buckets = buckets

    @property
    def _there(self) -> np.ndarray:
        return np.isfinite(self._high_RP).any(axis=0)

    @property
    def steps(self) -> np.ndarray:
        return self._buckets.ends()[self._there]

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


def packed(values: np.ndarray) -> str:
    """Float64 as text, bit by bit: what repeats itself, as memory does, takes next to nothing."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values, dtype="<f8").tobytes())).decode()


def unpacked(text: str, rows: int, columns: int) -> np.ndarray:
    """Raises ValueError where it is not what ``packed`` gave of so many."""
    try:
        content = zlib.decompress(base64.b64decode(text))
    except zlib.error as error:
        raise ValueError(f"is no packed array ({error})") from error
    return np.frombuffer(content, dtype="<f8").reshape(rows, columns).copy()
