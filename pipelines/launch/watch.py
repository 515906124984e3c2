"""The driver's wait for a gang: bounded, responsive, and always with the ranks' progress in view.

Runs on: driver.
Takes:   a started ``Gang`` and the ``News`` of its ranks.
Gives:   calls to an ``Observer``; returns when every rank has recorded that it ended well.
"""

from __future__ import annotations

import time

from pipelines.config.platform import Launch
from pipelines.errors import StalledError
from pipelines.lake.claims import Claim
from pipelines.launch.diagnosis import after_the_end, first_cause, frozen
from pipelines.launch.gang import Gang
from pipelines.launch.hub_server import Hub
from pipelines.launch.news import MAX_NAMED, News, RankNews, named
from pipelines.launch.observer import Observer
from pipelines.launch.rendezvous import Rendezvous
from pipelines.plan.run_plan import RunPlan

POLL_S = 0.1
ECHO_GRACE_S = 2.0  # in which the ranks that lost a peer say so: those that stay silent are the ones to name


def watch(gang: Gang, rendezvous: Rendezvous, hub: Hub, news: News, bounds: Launch, plan: RunPlan, observer: Observer,
          claim: Claim) -> None:
    """Waits until the gang has ended; what happens to it after every rank recorded a good end is no failure.

    Raises:
        SparkringError: the first cause of a rank's failure; StalledError when the ranks do not meet or none of them
            records anything within the bounds; StorageError when their records cannot be kept; AlreadyRunningError when the
            run is another process's by now, whose ranks write where ours do. The caller stops the gang.
    """
    began, met, ended = time.monotonic(), False, False
    while not ended:
        ended = gang.wait(POLL_S)  # asked before reading, so that the last records are seen
        claim.raise_if_lost()
        for record in news.new_records():
            if record["kind"] == "start" and news.met and not met:
                met = True
                rendezvous.close()
                observer.ranks_met(plan, news.starts())
            elif record["kind"] != "start" and record["rank"] == 0:
                observer.on_record(record)
        if hub.fault is not None:
            raise hub.fault
        if not ended and _out_of_bounds(news, began, bounds):
            observer.say(f"the run is complete, but its ranks have not left for {bounds.stall_timeout_s:g} s: they are ended")
            return
    if not news.completed:
        _await_echoes(gang, hub, news)
        raise first_cause(news.ranks, hub.exits(), gang.failure, _logs(hub))
    if gang.failure is not None:
        what = after_the_end(hub.exits(), gang.failure)
        observer.say(f"the run is complete; what followed its end failed: {what}")


def with_frozen_ranks(error: StalledError, hub: Hub) -> StalledError:
    """The same error, with the ranks that did not run when they were asked to end."""
    found = frozen(hub.exits())
    return StalledError(error.place, "; ".join([error.problem, *([", ".join(found)] if found else [])]), error.remedy)


def _await_echoes(gang: Gang, hub: Hub, news: News) -> None:
    """Gives the ranks that a failure reaches a moment to say so."""
    until = time.monotonic() + ECHO_GRACE_S
    while time.monotonic() < until and gang.failure is not None and gang.failure.java_end is None:
        exits = hub.exits()
        if all(rank.end is not None or rank.rank in exits for rank in news.ranks):
            return
        time.sleep(POLL_S)
        for _ in news.new_records():
            pass


def _logs(hub: Hub) -> str:
    """Where the ranks' logs are: with the driver, or still on their hosts."""
    return ", ".join([str(hub.live.path), *list(hub.logs().values())[:MAX_NAMED]])


def _out_of_bounds(news: News, began: float, bounds: Launch) -> bool:
    """True when the ranks of a complete run stay for too long.

    Raises:
        StalledError: they do not meet, or stay silent for too long.
    """
    if not news.met:
        if time.monotonic() - began > bounds.start_timeout_s:
            missing = [str(rank.rank) for rank in news.ranks if rank.start is None]
            shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            raise StalledError("launch.start_timeout_s",
                               f"after {bounds.start_timeout_s:g} s ranks {shown} of {len(news.ranks)} have not started",
                               "are all slots free? see the ranks' logs, or raise launch.start_timeout_s")
    elif news.silent_s > bounds.stall_timeout_s:
        if news.completed:
            return True
        raise _stalled(news.ranks, bounds.stall_timeout_s)
    return False


def _stalled(ranks: list[RankNews], bound_s: float) -> StalledError:
    """Names the ranks that are furthest behind: the others wait for them."""
    running = [rank for rank in ranks if rank.end is None] or ranks
    behind = min(running, key=lambda rank: (rank.step, rank.heard_s))
    oldest = [rank for rank in running if (rank.step, rank.phase) == (behind.step, behind.phase)]
    return StalledError("launch.stall_timeout_s", f"no rank has recorded anything for {bound_s:g} s; the oldest news "
                        f"is of {named(oldest)}: {behind.reached}, {behind.phase}",
                        "see the ranks' logs, or raise launch.stall_timeout_s")
