"""What the driver knows of every rank while it runs: its host, its last step, what it does, when it was last heard.

Runs on: driver.
Takes:   the ranks' growing record files.
Gives:   ``News``: new records as they come, and the newest facts of each rank. A record of any kind is news.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.lake.live_folder import LiveFolder
from pipelines.lake.rank_records import RecordTail

MAX_NAMED = 8


@dataclass
class RankNews:
    """One rank. ``str()`` names it: ``rank 1 on host-b``."""

    rank: int
    heard_s: float  # when its newest record was read, on the driver's monotonic clock
    start: dict[str, Any] | None = None
    step: int = 0  # the last that it recorded
    phase: str = "starting"
    end: dict[str, Any] | None = None

    def take(self, record: dict[str, Any], now_s: float) -> None:
        self.heard_s = now_s
        if record["kind"] == "start":
            self.start, self.phase = record, "before its first step"
        elif record["kind"] == "step":
            self.step, self.phase = record["step"], "training"
        elif record["kind"] == "evaluation":
            self.phase = "training"
        elif record["kind"] == "progress":
            self.phase = record.get("phase", self.phase)
        elif record["kind"] == "end":
            self.end, self.phase = record, "ended"

    def __str__(self) -> str:
        return f"rank {self.rank}" + (f" on {self.start['host']}" if self.start else "")

    @property
    def reached(self) -> str:
        """How far it came: ``after step 12``."""
        return f"after step {self.step:,}" if self.step else "before its first step"

    @property
    def completed(self) -> bool:
        return self.end is not None and self.end["status"] == "completed"


class News:
    """All ranks of one attempt."""

    def __init__(self, live: LiveFolder, num_ranks: int) -> None:
        now_s = time.monotonic()
        self.ranks = [RankNews(rank, now_s) for rank in range(num_ranks)]
        self._tails = [RecordTail(live.record(rank)) for rank in range(num_ranks)]

    def new_records(self) -> Iterator[dict[str, Any]]:
        """Records completed since the last call, taken into ``ranks``."""
        for rank, tail in zip(self.ranks, self._tails, strict=True):
            for record in tail.new_records():
                rank.take(record, time.monotonic())
                yield record

    def starts(self) -> list[dict[str, Any]]:
        """The start records of the ranks that have met, by rank."""
        return [rank.start for rank in self.ranks if rank.start is not None]

    @property
    def met(self) -> bool:
        return len(self.starts()) == len(self.ranks)

    @property
    def completed(self) -> bool:
        """Whether every rank has recorded that it ended well: the only thing that makes a run complete."""
        return all(rank.completed for rank in self.ranks)

    @property
    def silent_s(self) -> float:
        """How long no rank has recorded anything."""
        return time.monotonic() - max(rank.heard_s for rank in self.ranks)


def named(ranks: Sequence[RankNews]) -> str:
    """``rank 0 on host-a, rank 1 on host-b``, a bounded number of them."""
    shown = ", ".join(str(rank) for rank in ranks[:MAX_NAMED])
    return shown + (f" and {len(ranks) - MAX_NAMED} more" if len(ranks) > MAX_NAMED else "")
