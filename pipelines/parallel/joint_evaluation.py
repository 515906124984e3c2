"""Replicas that only evaluate: no optimizer, no gradients.

Runs on: ranks, all at the same time.
Takes:   a replica of any kind, the peers.
Gives:   ``JointEvaluation``: totals and sums over all ranks, as an ``Agreement`` gives them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from pipelines.feed.batches import Batch
from pipelines.parallel.peers import Peers
from pipelines.parallel.replica.replica import Replica
from pipelines.parallel.steps import See, Totals
from pipelines.plan.places import Place


@dataclass(frozen=True)
class JointEvaluation:
    """One replica of the model, and its peers."""

    replica: Replica
    peers: Peers

    @property
    def place(self) -> Place:
        return self.peers.place

    def evaluate(self, micro_batches: Iterable[Batch], num_micro_batches: int, see: See) -> Totals:
        return self.replica.evaluate(micro_batches, num_micro_batches, see).added_up(self.sum_over_ranks)

    def sum_over_ranks(self, values: Tensor) -> None:
        self.peers.sum(values, f"evaluation.{len(values)}")
