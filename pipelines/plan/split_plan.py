"""Where a layered model is cut: consecutive parts of about equal cost.

Runs on: driver and ranks (pure).
Takes:   one cost per layer, or counts given by the user.
Gives:   the number of layers of each part; every layer is in exactly one part, in order, and no part is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise


def cut_by_cost(costs: Sequence[float], num_parts: int) -> list[int]:
    """Layers per part, such that the most expensive part is as cheap as can be.

    Args:
        costs: of each layer, >= 0, in any unit. num_parts: 1 .. len(costs).

    Dynamic programme over (parts, layers), O(num_parts * layers^2). Source: the linear partition problem (Skiena 2008,
    section 8.5).
    """
    num_layers = len(costs)
    if not 1 <= num_parts <= num_layers:
        raise ValueError(f"{num_layers} layers cannot be cut into {num_parts} parts")
    before = [0.0, *accumulate(costs)]
    # worst[n]: cost of the most expensive part when the first n layers are cut into the parts so far
    worst = before[:]
    ends: list[list[int]] = []  # ends[p][n]: layers in the first p + 1 parts, when n layers are in p + 2 parts
    for parts in range(2, num_parts + 1):
        following, end_of = [float("inf")] * (num_layers + 1), [0] * (num_layers + 1)
        for n in range(parts, num_layers + 1):
            for first in range(parts - 1, n):
                cost = max(worst[first], before[n] - before[first])
                if cost < following[n]:
                    following[n], end_of[n] = cost, first
        worst = following
        ends.append(end_of)
    at = [num_layers]
    for end_of in reversed(ends):
        at.append(end_of[at[-1]])
    return [end - begin for begin, end in pairwise([0, *reversed(at)])]


def part_ranges(counts: Sequence[int]) -> list[range]:
    """The layers of each part, as ranges of indices."""
    return [range(end - count, end) for count, end in zip(counts, accumulate(counts), strict=True)]


def parts_of_segment(num_parts: int, segment_index: int, num_segments: int) -> range:
    """The parts that a segment holds: part i is on segment ``i % num_segments``."""
    return range(segment_index, num_parts, num_segments)
