"""A gang of ranks in one Spark barrier stage: all start together or none does.

Runs on: driver.
Takes:   a Spark session and a ``GangOrder``.
Gives:   ``Gang``: runs in the background, can be asked whether it has ended, and stopped within a bound.

Barrier tasks are started together by Spark, which is what a ring needs; each task starts one rank as a child process.
Source: the barrier execution mode of Spark (SPARK-24374); Horovod on Spark (Uber, 2019) for ranks as task children.
"""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark import BarrierTaskContext, InheritableThread
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines.launch.rank_process import GangOrder, run_rank, stop_file
from pipelines.tables.atomic import write_file
from pipelines.tables.paths import RunFolder


class Gang:
    """One launch of all ranks."""

    def __init__(self, spark: SparkSession, order: GangOrder, num_ranks: int) -> None:
        self._spark, self._order, self._num_ranks = spark, order, num_ranks
        self._group = f"sparkring-gang-{uuid.uuid4().hex[:12]}"
        self._ended = threading.Event()
        self.failure: str | None = None  # Spark's message
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
        # first by file: the tasks end their ranks in an orderly way; then through Spark, for tasks not even started
        write_file(stop_file(RunFolder(Path(self._order.run_folder)), self._order.attempt), "")
        if self._ended.wait(timeout_s / 2):
            return True
        try:
            self._spark.sparkContext.cancelJobGroup(self._group)
        except (Py4JError, OSError):
            return False  # the JVM is gone, and with it every task
        return self._ended.wait(timeout_s / 2)

    def _run(self) -> None:
        context = self._spark.sparkContext
        try:
            context.setJobGroup(self._group, f"sparkring: {self._num_ranks} ranks", interruptOnCancel=True)
            (context.parallelize(range(self._num_ranks), self._num_ranks).barrier()
             .mapPartitions(_task_body(self._order)).collect())
        except (Py4JError, PySparkException, OSError) as error:
            self.failure = str(error)
        finally:
            self._ended.set()


def _task_body(order: GangOrder) -> Any:
    def body(_: Any) -> Any:
        run_rank(order, BarrierTaskContext.get())
        return iter(())
    return body
