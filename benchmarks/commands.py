"""Commands that a benchmark times, ours or a peer's.

Runs on: driver.
Takes:   a command line.
Gives:   ``output_of``: what it printed; of a command that fails, an error with the end of what it said.
"""

from __future__ import annotations

import subprocess

TAIL_BYTES = 2000


def output_of(*command: object, timeout_s: float = 900) -> str:
    """Its standard output.

    Raises:
        RuntimeError: it did not end well. subprocess.TimeoutExpired: nor in time.
    """
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace",
                          timeout=timeout_s)
    if done.returncode != 0:
        raise RuntimeError(f"{command[1]} ended with {done.returncode}: ...{(done.stdout + done.stderr)[-TAIL_BYTES:]}")
    return done.stdout
