"""A gang of ranks in one Spark barrier stage: all start together or none does.

Runs on: driver.
Takes:   a Spark session, a ``GangOrder``, the hub.
Gives:   ``Gang``: runs in the background, can be asked whether it has ended, and stopped within a bound.

Barrier tasks are started together by Spark, which is what a ring needs; each task starts one rank as a child process.
Source: the barrier execution mode of Spark (SPARK-24374); Horovod on Spark (Uber, 2019) for ranks as task children.
"""

from __future__ import annotations

import subprocess
import threading
import uuid
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import BarrierTaskContext, InheritableThread
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines.launch.diagnosis import GangFailure, how_it_ended
from pipelines.launch.hub_server import Hub
from pipelines.launch.rank_process import GangOrder, run_rank

JAVA_END_S = 1.0  # from a broken connection to Java until its process is seen to have ended


class Gang:
    """One launch of all ranks."""

    def __init__(self, spark: SparkSession, order: GangOrder, num_ranks: int, hub: Hub) -> None:
        self._spark, self._order, self._num_ranks, self._hub = spark, order, num_ranks, hub
        self._group = f"sparkring-gang-{uuid.uuid4().hex[:12]}"
        self._ended = threading.Event()
        self.failure: GangFailure | None = None
        self._thread = InheritableThread(target=self._run, name="gang", session=spark)
        self._thread.daemon = True

    def start(self) -> None:
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """True once the stage has ended, well or not."""
        return self._ended.wait(timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """Ends all ranks; True when the stage was gone within the bound. Harmless when it has ended."""
        if self._ended.is_set():
            return True
        # first by a word: the tasks end their ranks in an orderly way; then through Spark, for tasks not even started
        self._hub.stop_ranks()
        if self._ended.wait(timeout_s / 2):
            return True
        with suppress(Py4JError, OSError):  # the JVM may be gone, and with it every task
            self._spark.sparkContext.cancelJobGroup(self._group)
        return self._ended.wait(timeout_s / 2)

    def _run(self) -> None:
        with ExitStack() as stack:
            stack.push(self._end)
            context = self._spark.sparkContext
            context.setJobGroup(self._group, f"sparkring: {self._num_ranks} ranks", interruptOnCancel=True)
            (context.parallelize(range(self._num_ranks), self._num_ranks).barrier()
             .mapPartitions(_task_body(self._order)).collect())

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Keeps whatever ended the thread for the one that watches: nobody would see it here."""
        if isinstance(error, Py4JJavaError | PySparkException):
            self.failure = GangFailure(str(error))
        elif error is not None:
            broken = isinstance(error, Py4JError | OSError)
            self.failure = GangFailure(f"{type(error).__name__}: {error}", self._java_end() if broken else None)
        self._ended.set()
        return True

    def _java_end(self) -> str | None:
        """How the driver's Java process ended; None while it lives."""
        process: subprocess.Popen[bytes] | None = getattr(self._spark.sparkContext._gateway, "proc", None)
        if process is None:  # spark-submit's, not our child
            return "does not answer any more"
        try:
            return how_it_ended(process.wait(JAVA_END_S))
        except subprocess.TimeoutExpired:
            return None


def _task_body(order: GangOrder) -> Any:
    def body(_: Any) -> Any:
        run_rank(order, BarrierTaskContext.get())
        return iter(())
    return body
