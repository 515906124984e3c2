"""The ranks of one replica of a split model: they hand activations and gradients to each other.

Runs on: ranks.
Takes:   this rank's place, a store for the replica's ranks alone.
Gives:   ``SegmentGroup``: a torch process group beside the ring, and the exchanges that are not the schedule's.

Horovod has no send and receive, so neighbours speak gloo (CPU) or NCCL (CUDA) through torch.distributed. Its ranks meet
at the driver's hub: nothing else listens for it, and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.errors import RankFailedError, SparkringError
from pipelines.parallel.ring import PeerLostError
from pipelines.parallel.segment_store import SegmentStore
from pipelines.plan.places import Place

_PEER_GONE = ("gloo", "Timed out", "Connection", "NCCL")  # in the message of a transport's error, not of a layer's


class SegmentGroup:
    """All segments of this rank's replica, from ``join`` to ``leave``. Group rank = segment index."""

    def __init__(self, place: Place, device: torch.device, store: SegmentStore) -> None:
        self.place, self._device, self._store = place, device, store

    @staticmethod
    def join(place: Place, store: SegmentStore, device: torch.device, *, meet_timeout_s: float, wait_timeout_s: float
             ) -> SegmentGroup:
        """Meets the other segments.

        Args:
            store: whose keys the replica's ranks share, and no other; NCCL needs it later too.
            wait_timeout_s: the longest wait for a neighbour afterwards.
        Raises:
            RankFailedError: they did not all come in time.
        """
        backend = "nccl" if device.type == "cuda" else "gloo"
        try:
            store.set_timeout(timedelta(seconds=meet_timeout_s))
            dist.init_process_group(backend, store=store, rank=place.segment_index, world_size=place.num_segments,
                                    timeout=timedelta(seconds=wait_timeout_s))
        except (RuntimeError, ValueError) as error:
            raise RankFailedError(f"segments of replica {place.replica_index}", f"did not meet: {error}",
                                  "see the other ranks' logs; check launch.network_interface and firewalls") from error
        group = SegmentGroup(place, device, store)
        group.sum(torch.zeros(1))  # all are there
        return group

    def leave(self) -> None:
        dist.destroy_process_group()
        self._store.close()

    def sum_between(self, values: Tensor, holders: Sequence[int]) -> None:
        """Replaces ``values`` on each of the holders (segment indices) by their sum, bit by bit the same on all.

        Other segments need not call it. Added in the order of the segments, so that copies of a tied parameter stay
        equal for ever.
        """
        own = self.place.segment_index
        others = [segment for segment in holders if segment != own]
        if not others:
            return
        received = {segment: torch.empty_like(values) for segment in others}
        with peer_errors():
            works = dist.batch_isend_irecv(
                [dist.P2POp(dist.isend, values, segment) for segment in others]
                + [dist.P2POp(dist.irecv, buffer, segment) for segment, buffer in received.items()])
            for work in works:
                work.wait()
        ordered = [values.clone() if segment == own else received[segment] for segment in sorted(holders)]
        total = ordered[0]
        for following in ordered[1:]:
            total.add_(following)
        values.copy_(total)

    def sum(self, values: Tensor) -> None:
        """Replaces ``values`` by its sum over all segments, in place."""
        moved = values.to(self._device)
        with peer_errors():
            dist.all_reduce(moved)
        values.copy_(moved)

    def send(self, values: Tensor, segment: int) -> None:
        with peer_errors():
            dist.send(values.contiguous(), segment)

    def receive(self, buffer: Tensor, segment: int) -> Tensor:
        with peer_errors():
            dist.recv(buffer, segment)
        return buffer


@contextmanager
def peer_errors() -> Iterator[None]:
    """Turns an error of the transport into PeerLostError; errors of the model's layers pass."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException | None = error  # torch's schedules wrap what happens in a backward, a ring's lost peer too
        while cause is not None:
            if isinstance(cause, SparkringError):
                raise cause from None
            cause = cause.__cause__
        text = str(error)
        if any(word in text for word in _PEER_GONE):
            reason = text.splitlines()[0].rpartition("] ")[2].partition(". This is")[0]  # without file names and advice
            raise PeerLostError("segments", f"a neighbour left while this rank waited for it ({reason})") from error
        raise
