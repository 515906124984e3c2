"""The ring: Horovod's collectives behind the few calls that training needs.

Runs on: ranks.
Takes:   ``HOROVOD_*`` in the environment (set by ``launch``); without them one rank stands alone.
Gives:   ``Ring``: sums over the copies of a segment, started early and finished late, under stable names.

Every call must be made by all ranks in the same order. Gradient traffic is explicit: Horovod's own optimizer, whose hooks
know nothing of a pipelined schedule, is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import horovod.torch as hvd
import torch
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor

from pipelines.errors import RankFailedError
from pipelines.plan.places import Place

WIRE_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Ring:
    """The ranks that hold the same segment, one of each replica, from ``join`` to ``leave``.

    Each segment has a ring of its own: Horovod's ranks agree in every cycle on what to sum next, also when there is
    nothing, and should not have to agree with those whom they share no gradient with.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    @staticmethod
    def join(num_segments: int = 1, segment_index: int = 0) -> Ring:
        """Meets the other ranks; bounded by ``HOROVOD_GLOO_TIMEOUT_SECONDS``.

        Raises:
            RankFailedError: they did not all come in time.
        """
        try:
            hvd.init()
        except (HorovodInternalError, RuntimeError, ValueError) as error:
            raise RankFailedError("ring", f"the ranks did not meet: {error}",
                                  "see the other ranks' logs; check launch.network_interface and firewalls") from error
        return Ring(Place(hvd.rank() * num_segments + segment_index, hvd.size() * num_segments, num_segments))

    def leave(self) -> None:
        hvd.shutdown()

    def start_sum(self, values: Tensor, name: str) -> Callable[[], None]:
        """Begins to replace ``values`` by its sum; the returned call waits until that is done.

        Args:
            name: the same on every rank and in every step (Horovod's response cache keys on it).
        """
        if self.place.num_replicas == 1:
            return _nothing
        with self._peer_errors():
            handle = hvd.allreduce_async_(values, op=hvd.Sum, name=name)

        def finish() -> None:
            self._wait(handle)

        return finish

    def sum(self, values: Tensor, name: str) -> Tensor:
        """Sum over the ring, in place."""
        self.start_sum(values, name)()
        return values

    def start_narrow_sum(self, values: Tensor, wire: torch.dtype, name: str) -> Callable[[], None]:
        """As ``start_sum`` with 16-bit values on the wire and float32 additions.

        Each rank receives everyone's piece of one part, adds in float32, and the rounded sums are gathered: the bytes
        of a ring allreduce, but one rounding instead of one per hop, the same result on every rank, and bfloat16,
        which Horovod's own reduction does not know.
        """
        size = self.place.num_replicas
        if size == 1:
            return _nothing
        part = -(-values.numel() // size)
        narrow = torch.zeros(part * size, dtype=wire, device=values.device)
        narrow[: values.numel()] = values
        with self._peer_errors():
            handle = hvd.alltoall_async(narrow.view(torch.uint8), name=f"{name}.scatter")

        def finish() -> None:
            received = self._wait(handle).view(wire).view(size, part).float().sum(0).to(wire)
            with self._peer_errors():
                gathering = hvd.allgather_async(received.view(torch.uint8), name=f"{name}.gather")
            values.copy_(self._wait(gathering).view(wire)[: values.numel()])

        return finish

    def _wait(self, handle: int) -> Tensor:
        """The finished collective's tensor."""
        with self._peer_errors():
            result = hvd.synchronize(handle)
        return result[0] if isinstance(result, tuple) else result

    @contextmanager
    def _peer_errors(self) -> Iterator[None]:
        """A lost peer becomes an error that names no guess. It may be noticed where a sum is started or where it ends."""
        try:
            yield
        except HorovodInternalError as error:
            raise PeerLostError(f"rank {self.place.rank}", f"a peer left while this rank waited for it ({error})") from error


def _nothing() -> None:
    """One rank alone has nothing to wait for."""


class PeerLostError(RankFailedError):
    """This rank is well, another one is not: never the first cause of a failure."""
