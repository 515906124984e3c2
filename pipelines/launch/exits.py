"""How a rank's process ended, as its Spark task tells the driver.

Runs on: executors (``exit_facts``) and driver (``told_exit``).
Takes:   exit code, state and log of a process.
Gives:   ``Exit``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pipelines.hub.messages import finite_number, short_text, whole_number

TAIL_BYTES = 4096
LOG_BYTES = 256 * 1024  # of a log's end, which travels


@dataclass(frozen=True)
class Exit:
    """How a rank's process ended."""

    rank: int
    host: str
    exit_code: int  # below 0: of the signal
    time_s: float  # Unix time
    state: str  # psutil's word for what it did when it was asked to end; empty where it was not asked
    tail: str  # of its output
    log: str  # its whole output, or the end of it where that is long


def exit_facts(host: str, exit_code: int, state: str = "") -> dict[str, Any]:
    """What is told, beside the log."""
    return {"exit": exit_code, "host": host, "time_s": time.time(), "state": state}


def told_exit(rank: int, facts: dict[str, Any], log: bytes, path: str) -> Exit:
    """Raises ProtocolError where the facts are none."""
    return Exit(rank, short_text(facts, "host"), whole_number(facts, "exit", 2**31, -(2**31)),
                finite_number(facts, "time_s", 0.0, 1e12), short_text(facts, "state"),
                log[-TAIL_BYTES:].decode("utf-8", errors="replace"), path)
