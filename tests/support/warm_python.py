"""Pythons that have imported all that a rank needs and fork a process for each rank: a start takes 20 ms instead of 2 s.

Each rank is a process of its own, as in a run. The ranks of one job come from different Pythons, with different hash seeds,
so that nothing which differs between fresh processes is the same here by luck. What needs a truly fresh process (the
allocator's settings, a peak of memory, a kill) starts one.

``python -m tests.support.warm_python`` is such a Python: it reads one order a line and says the process id, then the exit code.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import runpy
import selectors
import signal
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRELOADED = ("horovod.torch", "torch.distributed.pipelining", "pipelines.feed.petastorm_reader", "pipelines.train.worker")
START_TIMEOUT_S = 120.0
_started: dict[int, WarmPython] = {}


class WarmPython:
    """One of them, with at most one rank at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "tests.support.warm_python"], cwd=ROOT, text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
        self._pid = 0

    def start(self, arguments: list[str], environment: dict[str, str], output: Path) -> None:
        """What ``python ARGUMENTS`` does, in a new process that prints to a file."""
        order = {"arguments": arguments, "environment": environment, "output": str(output)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._pid = self._answer(START_TIMEOUT_S)

    def exit_code(self, timeout_s: float) -> int:
        """Of the rank; one that takes longer is killed.

        Raises:
            TimeoutError: it was.
        """
        try:
            return self._answer(timeout_s)
        except TimeoutError:
            os.kill(self._pid, signal.SIGKILL)
            self._answer(START_TIMEOUT_S)
            raise

    def _answer(self, timeout_s: float) -> int:
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                raise TimeoutError(f"a rank was not done after {timeout_s:g} s")
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=START_TIMEOUT_S)


def warm_pythons(number: int) -> list[WarmPython]:
    """The first ones, started when first asked for; they end with the tests."""
    for index in range(number):
        if index not in _started:
            _started[index] = WarmPython()
            atexit.register(_started[index].close)
    return [_started[index] for index in range(number)]


def _serve() -> None:
    for module in PRELOADED:
        __import__(module)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(**json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _become(arguments: list[str], environment: dict[str, str], output: str) -> None:
    """Runs the order in this process and ends it."""
    with open(os.devnull, "rb") as nothing, open(output, "wb") as file:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment, SPARKRING_PARENT_PID=str(os.getppid()))
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    _draw_anew()
    code: object = 1
    try:
        kind, what, *sys.argv[1:] = arguments
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<command>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _draw_anew() -> None:
    """Python's and numpy's random numbers begin anywhere in a fresh process."""
    import numpy as np

    random.seed()
    np.random.seed()


if __name__ == "__main__":
    _serve()
