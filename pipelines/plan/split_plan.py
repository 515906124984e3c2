"""How one copy of a model runs on the ranks that hold it: where it is cut, and what its schedule asks for.

Runs on: driver and ranks (pure).
Takes:   the layout; one cost per layer, or counts given by the user.
Gives:   ``SplitPlan``; the number of layers of each part: every layer is in exactly one part, in order, and no part is empty.

All that is known of schedules is here; ``parallel/replica/split.py`` names the torch class of each.

Worked example: 5 layers on 2 segments, interleaved_1f1b with 2 parts per rank, counts (1, 1, 1, 2): segment 0 holds the parts
0 and 2 (layers 0 and 2), segment 1 the parts 1 and 3 (layers 1, 3 and 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from pipelines.config.platform import Layout

SEVERAL_PARTS = ("interleaved_1f1b", "zero_bubble")  # schedules in which a rank holds several parts


def num_parts(layout: Layout) -> int:
    """Into how many consecutive parts one copy of the model is cut."""
    several = layout.schedule in SEVERAL_PARTS and layout.num_segments > 1
    return layout.num_segments * (layout.parts_per_rank if several else 1)


@dataclass(frozen=True)
class SplitPlan:
    """How a model is run over the ranks of each replica. Part i is on segment ``i % num_segments``; one part: not split."""

    num_replicas: int
    num_segments: int
    schedule: str
    counts: tuple[int, ...]  # layers of each part
    micro_batches: int  # of a step, on one replica
    micro_batch_samples: int

    @staticmethod
    def of(layout: Layout, counts: Sequence[int], global_batch_samples: int) -> SplitPlan:
        share = global_batch_samples // layout.num_replicas
        size = min(layout.micro_batch_samples, share)
        return SplitPlan(layout.num_replicas, layout.num_segments, layout.schedule, tuple(counts), -(-share // size), size)

    @property
    def ranges(self) -> list[range]:
        """The layers of each part, as indices."""
        return [range(end - count, end) for count, end in zip(self.counts, accumulate(self.counts), strict=True)]

    def parts_of(self, segment_index: int) -> range:
        """The parts that a segment holds."""
        return range(segment_index, len(self.counts), self.num_segments)

    def layers_of(self, segment_index: int) -> list[int]:
        """The layers that a segment holds, as indices."""
        return [i for part in self.parts_of(segment_index) for i in self.ranges[part]]

    @property
    def bubble(self) -> float:
        """Share of a step that a rank waits for other segments, at least."""
        return bubble_share(self.num_segments, len(self.counts) // self.num_segments, self.micro_batches)

    @property
    def weights_apart(self) -> bool:
        """Whether the schedule adds weights' gradients apart from backward, without autograd's hooks."""
        return self.schedule == "zero_bubble"

    @property
    def accepted(self) -> bool:
        """What torch's schedules ask for: 1f1b as many micro-batches as segments; those of several parts whole rounds."""
        if self.num_segments == 1 or self.schedule == "gpipe":
            return True
        if self.schedule == "1f1b":
            return self.micro_batches >= self.num_segments
        return self.micro_batches % max(1, self.micro_batches // self.num_segments) == 0

    def forwards_in_flight(self, segment_index: int) -> int:
        """Micro-batches whose activations a rank holds at once, at most, counted over all of its parts."""
        if self.num_segments == 1:
            return 1
        # the last segment begins one while what backward of the one before has let go of may still be there
        most = {"gpipe": self.micro_batches, "1f1b": max(2, self.num_segments - segment_index)}
        return min(self.micro_batches, most.get(self.schedule, 2 * self.num_segments))  # interleaved: of each part, about


def bubble_share(num_segments: int, parts_per_rank: int, micro_batches: int) -> float:
    """p segments, m micro-batches, v parts per rank: (p - 1) / (v m + p - 1). Source: Narayanan et al. 2021."""
    return (num_segments - 1) / (parts_per_rank * micro_batches + num_segments - 1)


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
