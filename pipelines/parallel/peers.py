"""Those with whom a rank works: the ring of its segment over the replicas, and the segments of its replica.

Runs on: ranks, all at the same time.
Takes:   what ``launch`` left in the environment; a store at which a replica's segments meet.
Gives:   ``Peers``, from ``join`` to ``leave``.

Worked example: 2 replicas of 2 segments. Rank 1 is segment 1 of replica 0: its ring are the ranks 1 and 3, its group the ranks
0 and 1. A sum over the ring and then over the group is a sum over all four.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.config.platform import Launch
from pipelines.parallel.ring import Ring
from pipelines.parallel.segment_store import SegmentStore
from pipelines.parallel.segments import SegmentGroup
from pipelines.plan.places import Place


@dataclass(frozen=True)
class Peers:
    """Both, where there are both."""

    ring: Ring  # the ranks of the other replicas that hold the same segment
    group: SegmentGroup | None = None  # the other segments of this replica; None where it is of one rank

    @staticmethod
    def join(num_segments: int, segment_index: int, meeting: Callable[[], SegmentStore], device: torch.device, launch: Launch
             ) -> Peers:
        """Meets them all.

        Args:
            meeting: makes the store at which the segments of this rank's replica meet; not called for a whole model.
        Raises:
            RankFailedError: they did not all come in time.
        """
        ring = Ring.join(num_segments, segment_index)
        if num_segments == 1:
            return Peers(ring)
        return Peers(ring, SegmentGroup.join(ring.place, meeting(), device,
                                             meet_timeout_s=launch.start_timeout_s, wait_timeout_s=launch.stall_timeout_s))

    @property
    def place(self) -> Place:
        return self.ring.place

    def sum(self, values: Tensor, name: str) -> Tensor:
        """Sum over all ranks, in place; ``name`` as in ``Ring.start_sum``."""
        self.ring.sum(values, name)
        if self.group is not None:
            self.group.sum(values)
        return values

    def leave(self) -> None:
        if self.group is not None:
            self.group.leave()
        self.ring.leave()
