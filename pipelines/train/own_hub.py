"""A rank's part in the driver's hub: where its records go and its segments meet.

Runs on: ranks.
Takes:   what the launcher left in the environment.
Gives:   ``HubOfRank``, taken once at the start of a process; ``record_writer``, which does without a hub; ``meeting_store``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import RankFailedError
from pipelines.hub.hub_address import HubAddress, taken_address
from pipelines.hub.meeting_point import MeetingPoint
from pipelines.hub.messages import SILENCE_S
from pipelines.hub.record_stream import RecordStream
from pipelines.lake.rank_records import RecordWriter
from pipelines.parallel.segment_store import SegmentStore


@dataclass(frozen=True)
class HubOfRank:
    """The driver's hub, and the number of this rank there."""

    address: HubAddress
    rank: int

    @staticmethod
    def taken() -> HubOfRank | None:
        """Out of this process' environment; None for a rank that was started by hand."""
        found = taken_address(os.environ)
        return None if found is None else HubOfRank(*found)

    def variables(self) -> dict[str, str]:
        """For the program that this process becomes."""
        return self.address.variables(self.rank)


def opened_stream(hub: HubOfRank | None) -> RecordStream | None:
    """From here on the rank is known to the hub, and ends when the hub has been silent for too long."""
    return None if hub is None else RecordStream(hub.address, hub.rank, end_without_driver)


def record_writer(stream: RecordStream | None, file: Path, rank: int, attempt: int) -> RecordWriter:
    """``file``: for a rank without a hub."""
    return RecordWriter(file if stream is None else stream, rank, attempt)


def meeting_store(hub: HubOfRank | None) -> SegmentStore:
    """Raises RankFailedError where there is no hub."""
    if hub is None:
        raise RankFailedError("segments", "have no hub at which they could meet", "start all ranks with the launcher")
    return SegmentStore(MeetingPoint(hub.address, hub.rank))


def end_without_driver() -> None:
    """At once: a thread that computes cannot be asked, and nobody would ever take what it computes."""
    os.write(2, f"error: the driver has not been heard for {SILENCE_S:g} s (it was killed, or its machine or the network went "
                "down): this rank ends\n".encode())
    os._exit(RankFailedError.exit_code)
