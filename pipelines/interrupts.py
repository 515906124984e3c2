"""Ctrl-C and SIGTERM as an ordinary error of the main thread.

Runs on: driver.
Takes:   the first SIGINT or SIGTERM.
Gives:   ``InterruptedRunError`` where the main thread stands, so that every ``finally`` ends what it started;
         further signals are ignored meanwhile, or an impatient second Ctrl-C would leave ranks behind.
"""

from __future__ import annotations

import signal
from types import FrameType

from pipelines.errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def arm_interrupts() -> None:
    """Installs the handlers. ``session.py`` keeps them in place of pyspark's."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise InterruptedRunError(signal.Signals(number).name, "the run was asked to stop",
                              "the same command again starts it anew; what was complete is kept")
