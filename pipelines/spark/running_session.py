"""The Spark session that this process has already, whichever thread asks.

Runs on: driver.
Takes:   nothing.
Gives:   ``running_session``.
"""

from __future__ import annotations

from pyspark import SparkContext
from pyspark.sql import SparkSession


def running_session() -> SparkSession | None:
    """What Spark calls the active session is the calling thread's: a thread that did not start the session, or whose
    connection to Java was broken off by an interrupt, has none."""
    active = SparkSession.getActiveSession()
    if active is not None or SparkContext._active_spark_context is None:
        return active
    return SparkSession.builder.getOrCreate()
