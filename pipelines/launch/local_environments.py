"""What ranks without Spark find in their environment, and what is there for them meanwhile.

Runs on: driver, without a JVM.
Takes:   a number of ranks, or a run folder that is prepared for its ranks.
Gives:   ``rank_environments``, ``attempt_environments``: while they are open, rendezvous and hub listen on loopback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pipelines.config.load import Config
from pipelines.lake.paths import RunFolder
from pipelines.launch.hub_server import Hub
from pipelines.launch.interfaces import interface_of
from pipelines.launch.rank_process import GangOrder, rank_environment
from pipelines.launch.rendezvous import Rendezvous
from pipelines.plan.places import place_ranks
from pipelines.plan.run_plan import RunPlan

LOOPBACK = "127.0.0.1"
MEET_TIMEOUT_S = 60.0


@contextmanager
def rank_environments(num_ranks: int, num_segments: int = 1, *, threads_per_rank: int = 1, cycle_time_ms: float = 1.0,
                      run: RunFolder | None = None, attempt: int = 0) -> Iterator[list[dict[str, str]]]:
    """What each rank is to find in its environment, while there is where they meet.

    Args:
        run: where their records go; None: they make none, and are of whole models.
    """
    with ExitStack() as stack:
        rendezvous = stack.enter_context(Rendezvous(LOOPBACK, num_ranks // num_segments, num_segments))
        rendezvous.admit(LOOPBACK)
        hub = None if run is None else stack.enter_context(Hub(LOOPBACK, run.live(attempt), num_ranks, num_segments)).address
        order = GangOrder(root="", run_id="", attempt=0, num_segments=num_segments, threads_per_rank=threads_per_rank,
                          driver_address=LOOPBACK, rendezvous_ports=rendezvous.ports, rendezvous_key=rendezvous.key, hub=hub,
                          network_interface=None, meet_timeout_s=MEET_TIMEOUT_S, cycle_time_ms=cycle_time_ms)
        seats = sorted(place_ranks([LOOPBACK] * num_ranks, num_segments), key=lambda seat: seat.rank)
        yield [rank_environment(order, seat, interface_of(LOOPBACK)) for seat in seats]


@contextmanager
def attempt_environments(run: RunFolder, attempt: int = 0) -> Iterator[list[dict[str, str]]]:
    """The same for the ranks of a prepared attempt."""
    layout = Config.from_json(run.store.read(run.config(attempt)).decode()).platform.layout
    with rank_environments(layout.num_ranks, layout.num_segments, threads_per_rank=layout.threads_per_rank,
                           cycle_time_ms=RunPlan.load(run, attempt).cycle_time_ms, run=run, attempt=attempt) as environments:
        yield environments
