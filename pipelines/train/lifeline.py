"""A rank dies with the process that started it, however that process ends.

Runs on: ranks, first thing.
Takes:   the starter's process id in ``SPARKRING_PARENT_PID``.
Gives:   the kernel's promise to kill this process when its parent is gone (Linux; elsewhere only the check).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from pipelines.train import rank_variables

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Does nothing when the rank was started by hand, without the variable."""
    parent = os.environ.get(rank_variables.PARENT)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the promise was made
        os.kill(os.getpid(), signal.SIGKILL)
