"""Around the Spark job of a prepare: its partitions, bounded batches, and errors without Java's stack trace.

Runs on: driver.
Takes:   the session, the recipe's section ``prepare``.
Gives:   how many partitions there are; blocks to run the job in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines.config.datasets import PrepareSection
from pipelines.errors import SparkringError, StorageError
from pipelines.prepare.inputs import spark_reads
from pipelines.prepare.remote import java_cause, unreadable

OUTCOME_DDL = "outcome STRING"  # what a task that writes says of itself
ARROW_BATCH = {"spark.sql.execution.arrow.maxRecordsPerBatch": "2048",
               "spark.sql.execution.arrow.maxBytesPerBatch": str(32 * 1024**2)}
SMALL_PARTITION_BYTES, SMALL_PARTITIONS = 2 * 1024**2, 8  # inputs below 8 shards still use several cores


def num_partitions(input_bytes: int, shard_bytes: int) -> int:
    """Partitions, and so shards of a split at most; depends on the data only, never on the cluster."""
    small = min(SMALL_PARTITIONS, input_bytes // SMALL_PARTITION_BYTES)
    return max(1, small, math.ceil(input_bytes / shard_bytes))


@contextmanager
def arrow_batches(spark: SparkSession) -> Iterator[None]:
    """Bounds what a Python worker holds at once; the session's own settings come back afterwards."""
    with spark_settings(spark, ARROW_BATCH):
        yield


@contextmanager
def spark_settings(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Of the session, for the block; its own come back afterwards."""
    before = {key: spark.conf.get(key, None) for key in settings}
    try:
        for key, value in settings.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)


@contextmanager
def spark_errors(prepare: PrepareSection) -> Iterator[None]:
    """A failed Spark job without its Java stack trace."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if "No space left on device" in str(error):
            raise StorageError("spark.local.dir", "is full", "free space, or set it to another folder") from None
        urls = ", ".join(source.path for source in prepare.inputs if spark_reads(source.path))
        if urls and "PythonException" not in str(error):
            raise unreadable("prepare.inputs", urls, error) from None
        raise SparkringError("prepare", f"the Spark job failed: {java_cause(error)}", "see Spark's own log") from error
