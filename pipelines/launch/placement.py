"""Which task of the barrier stage becomes which rank.

Runs on: driver and executors (pure).
Takes:   the host of every task, in task order.
Gives:   one ``Seat`` per task; all tasks compute the same seats, so nobody has to hand them out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True)
class Seat:
    """A rank's place, in Horovod's terms: local = among ranks of its host, cross = among hosts with that local rank."""

    host: str
    rank: int
    num_ranks: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int


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
    local_ranks: dict[int, int] = {}
    ranks_of: dict[str, int] = defaultdict(int)
    for rank, task in enumerate(task_of_rank):
        local_ranks[rank] = ranks_of[hosts[task]]
        ranks_of[hosts[task]] += 1
    host_order = list(dict.fromkeys(hosts[task] for task in task_of_rank))
    seats: dict[int, Seat] = {}
    for rank, task in enumerate(task_of_rank):
        host, local_rank = hosts[task], local_ranks[rank]
        cross = [other for other in host_order if ranks_of[other] > local_rank]
        seats[task] = Seat(host, rank, len(hosts), local_rank, ranks_of[host], cross.index(host), len(cross))
    return [seats[task] for task in range(len(hosts))]
