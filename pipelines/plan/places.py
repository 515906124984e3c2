"""Where ranks stand: which replica and segment a rank is, and which Spark task becomes which rank.

Runs on: driver, executors and ranks (pure).
Takes:   the host of every Spark task, in their order.
Gives:   ``Place`` of a rank; one ``Seat`` per Spark task: all of them compute the same seats, so nobody has to hand them out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass


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


@dataclass(frozen=True)
class RingSeat:
    """A place among the ranks that hold the same segment, in Horovod's terms: local = on this host, cross = among the
    hosts with that local rank."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int


@dataclass(frozen=True)
class Seat:
    """A rank's place. ``rank = replica_index * num_segments + segment_index``."""

    host: str
    rank: int
    segment_index: int
    local_rank: int  # among all ranks of its host
    ring: RingSeat


def place_ranks(hosts: list[str], num_segments: int) -> list[Seat]:
    """Numbers ranks host by host, so that a replica's segments share a host wherever slots allow.

    Args:
        hosts: host of each task. num_segments: ranks of one replica; divides ``len(hosts)``.
    Returns:
        Seat of each task. Whole replicas come first, host by host; what is left over on the hosts forms the last ones.
    """
    tasks_of: dict[str, list[int]] = defaultdict(list)
    for task, host in enumerate(hosts):
        tasks_of[host].append(task)
    whole, left_over = [], []
    for tasks in tasks_of.values():
        end = len(tasks) // num_segments * num_segments
        whole += tasks[:end]
        left_over += tasks[end:]
    task_of_rank = whole + left_over
    by_rank = [hosts[task] for task in task_of_rank]
    rings = [_ring_seats(by_rank[segment::num_segments]) for segment in range(num_segments)]
    seats: dict[int, Seat] = {}
    for rank, task in enumerate(task_of_rank):
        replica, segment = divmod(rank, num_segments)
        seats[task] = Seat(by_rank[rank], rank, segment, by_rank[:rank].count(by_rank[rank]),
                           rings[segment][replica])
    return [seats[task] for task in range(len(hosts))]


def _ring_seats(hosts: list[str]) -> list[RingSeat]:
    """Of the ranks of one ring, whose hosts these are."""
    sizes = Counter(hosts)  # keeps the order in which hosts first appear
    seats = []
    for rank, host in enumerate(hosts):
        local_rank = hosts[:rank].count(host)
        cross = [other for other in sizes if sizes[other] > local_rank]
        seats.append(RingSeat(rank, len(hosts), local_rank, sizes[host], cross.index(host), len(cross)))
    return seats
