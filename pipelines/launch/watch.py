"""The driver's wait for a gang: bounded, responsive, and always with the ranks' progress in view.

Runs on: driver.
Takes:   a started ``Gang`` and the ranks' record files.
Gives:   calls to an ``Observer``; returns when every rank ended well.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from pipelines.config.platform import Launch
from pipelines.errors import StalledError
from pipelines.launch.diagnosis import first_cause
from pipelines.launch.gang import Gang
from pipelines.launch.rendezvous import Rendezvous
from pipelines.tables.paths import RunFolder
from pipelines.tables.records import RecordTail
from pipelines.train.layout import Choice
from pipelines.train.plan import RunPlan

POLL_S = 0.1


class Observer(Protocol):
    """Who wants to see a run go on, such as a progress bar."""

    def layout_chosen(self, choice: Choice) -> None:
        """``layout: auto`` has become numbers."""

    def ranks_met(self, plan: RunPlan, starts: list[dict[str, Any]]) -> None:
        """All ranks have met; what they are going to do, and their start records by rank."""

    def on_record(self, record: dict[str, Any]) -> None:
        """A record of rank 0."""


def watch(gang: Gang, rendezvous: Rendezvous, run: RunFolder, attempt: int, num_ranks: int, bounds: Launch,
          plan: RunPlan, observer: Observer) -> None:
    """Waits until the gang has ended.

    Raises:
        SparkringError: the first cause of a rank's failure; StalledError when the ranks do not meet or no rank makes
            a step within the bounds. The caller stops the gang.
    """
    tails = [RecordTail(run.record(attempt, rank)) for rank in range(num_ranks)]
    starts: dict[int, dict[str, Any]] = {}
    began = last_news = time.monotonic()
    ended = False
    while not ended:
        ended = gang.wait(POLL_S)  # asked before reading, so that the last records are seen
        for rank, tail in enumerate(tails):
            for record in tail.new_records():
                last_news = time.monotonic()
                if record["kind"] == "start":
                    starts[rank] = record
                    if len(starts) == num_ranks:
                        rendezvous.close()
                        observer.ranks_met(plan, [starts[r] for r in range(num_ranks)])
                elif rank == 0:
                    observer.on_record(record)
        if not ended:
            _check_bounds(starts, num_ranks, began, last_news, bounds)
    if gang.failure is not None:
        raise first_cause(run, attempt, num_ranks, gang.failure)


def _check_bounds(starts: dict[int, Any], num_ranks: int, began: float, last_news: float, bounds: Launch) -> None:
    now = time.monotonic()
    if len(starts) < num_ranks:
        if now - began > bounds.start_timeout_s:
            missing = [rank for rank in range(num_ranks) if rank not in starts]
            raise StalledError("launch.start_timeout_s",
                               f"after {bounds.start_timeout_s:g} s ranks {_some(missing)} of {num_ranks} have not started",
                               "are all slots free? see the ranks' logs, or raise launch.start_timeout_s")
    elif now - last_news > bounds.stall_timeout_s:
        raise StalledError("launch.stall_timeout_s", f"no rank has made a step for {bounds.stall_timeout_s:g} s",
                           "see the ranks' logs, or raise launch.stall_timeout_s")


def _some(ranks: list[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:8])
    return shown + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
