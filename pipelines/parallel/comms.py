"""The ring: Horovod's collectives behind the few calls that training needs.

Runs on: ranks.
Takes:   ``HOROVOD_*`` in the environment (set by ``launch``); without them one rank stands alone.
Gives:   ``Ring``: sums over ranks, started early and finished late, under stable names.

Every call must be made by all ranks in the same order. Gradient traffic is explicit: no optimizer hooks, since those
fire before a pipelined schedule has scaled the gradients.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import horovod.torch as hvd
import torch
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor

from pipelines.errors import RankFailedError

WIRE_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Place:
    """Where this rank stands. ``rank = replica_index * num_segments + segment_index``."""

    rank: int
    num_ranks: int
    num_segments: int

    @property
    def replica_index(self) -> int:
        return self.rank // self.num_segments

    @property
    def num_replicas(self) -> int:
        return self.num_ranks // self.num_segments

    @property
    def segment_index(self) -> int:
        return self.rank % self.num_segments


    @property
    def needs_samples(self) -> bool:
        """Whether this rank holds the first or the last segment: what the model takes, or what it is compared with."""
        return self.segment_index in (0, self.num_segments - 1)


class Ring:
    """All ranks of a run, from ``join`` to ``leave``; and among them the ring of one segment's copies in all replicas."""

    def __init__(self, place: Place, replicas: hvd.ProcessSet) -> None:
        self.place = place
        self._replicas = replicas

    @staticmethod
    def join(num_segments: int) -> Ring:
        """Meets the other ranks; bounded by ``HOROVOD_GLOO_TIMEOUT_SECONDS``.

        Raises:
            RankFailedError: they did not all come in time.
        """
        num_ranks = int(os.environ.get("HOROVOD_SIZE", "1"))
        # Horovod wants the same sets in the same order on every rank: one per segment, of its copies in all replicas
        sets = [hvd.ProcessSet(range(segment, num_ranks, num_segments)) for segment in range(num_segments)]
        hybrid = 1 < num_segments < num_ranks
        try:
            hvd.init(process_sets=sets if hybrid else None)
        except (HorovodInternalError, RuntimeError, ValueError) as error:
            raise RankFailedError("ring", f"the ranks did not meet: {error}",
                                  "see the other ranks' logs; check launch.network_interface and firewalls") from error
        place = Place(hvd.rank(), hvd.size(), num_segments)
        return Ring(place, sets[place.segment_index] if hybrid else hvd.global_process_set)

    def leave(self) -> None:
        hvd.shutdown()

    def start_sum(self, values: Tensor, name: str, *, over_replicas: bool = False) -> Callable[[], None]:
        """Begins to replace ``values`` by its sum; the returned call waits until that is done.

        Args:
            name: the same on every rank and in every step (Horovod's response cache keys on it).
            over_replicas: sum over the ranks that hold the same segment, not over all ranks.
        """
        if self._size(over_replicas) == 1:
            return _nothing
        handle = hvd.allreduce_async_(values, op=hvd.Sum, name=name, process_set=self._set(over_replicas))

        def finish() -> None:
            _wait(handle)

        return finish

    def sum(self, values: Tensor, name: str) -> Tensor:
        """Sum over all ranks, in place."""
        self.start_sum(values, name)()
        return values

    def start_narrow_sum(self, values: Tensor, wire: torch.dtype, name: str, *, over_replicas: bool = False
                         ) -> Callable[[], None]:
        """As ``start_sum`` with 16-bit values on the wire and float32 additions.

        Each rank receives everyone's piece of one part, adds in float32, and the rounded sums are gathered: the bytes
        of a ring allreduce, but one rounding instead of one per hop, the same result on every rank, and bfloat16,
        which Horovod's own reduction does not know.
        """
        size, process_set = self._size(over_replicas), self._set(over_replicas)
        if size == 1:
            return _nothing
        part = -(-values.numel() // size)
        narrow = torch.zeros(part * size, dtype=wire, device=values.device)
        narrow[: values.numel()] = values
        handle = hvd.alltoall_async(narrow.view(torch.uint8), name=f"{name}.scatter", process_set=process_set)

        def finish() -> None:
            received = _wait(handle).view(wire).view(size, part).float().sum(0).to(wire)
            gathered = _wait(hvd.allgather_async(received.view(torch.uint8), name=f"{name}.gather",
                                                 process_set=process_set))
            values.copy_(gathered.view(wire)[: values.numel()])

        return finish

    def _size(self, over_replicas: bool) -> int:
        return self.place.num_replicas if over_replicas else self.place.num_ranks

    def _set(self, over_replicas: bool) -> hvd.ProcessSet:
        return self._replicas if over_replicas else hvd.global_process_set


def _nothing() -> None:
    """One rank alone has nothing to wait for."""


def _wait(handle: int) -> Tensor:
    """The finished collective's tensor; a lost peer becomes an error that names no guess."""
    try:
        result = hvd.synchronize(handle)
    except HorovodInternalError as error:
        raise PeerLostError(f"rank {os.environ.get('HOROVOD_RANK', '0')}",
                            f"a peer left while this rank waited for it ({error})") from error
    return result[0] if isinstance(result, tuple) else result


class PeerLostError(RankFailedError):
    """This rank is well, another one is not: never the first cause of a failure."""
