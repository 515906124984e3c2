"""A Spark session that starts while its job does something else.

Runs on: driver.
Takes:   the platform and the application's name.
Gives:   ``SessionStart``, a context manager that ends the session as ``spark_session`` does.

A start takes seconds, mostly of one core: listing and hashing the input and making the tokenizer fit in there.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines.config import Platform
from pipelines.errors import ResourceError, SparkringError
from pipelines.spark.running_session import running_session
from pipelines.spark.session import spark_session

ABANDONED_START_TIMEOUT_S = 30.0  # of a job that ends before its session has started; Java then ends with the job


class SessionStart:
    """Starts when entered. A session that is already running is used, and left running."""

    def __init__(self, platform: Platform, app_name: str) -> None:
        self._opening = spark_session(platform, app_name)
        self._closing = ExitStack()
        self._thread = threading.Thread(target=self._start, name="start Spark", daemon=True)
        self._done = threading.Event()  # a join that a signal breaks off takes its thread for ended (bpo-45274)
        self._spark: SparkSession | None = None
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._spark = running_session()
        if self._spark is None:
            self._thread.start()
        else:
            self._spark = self._closing.enter_context(self._opening)
        return self

    def session(self) -> SparkSession:
        """The session, once it has started.

        Raises:
            ConfigError, ResourceError: see ``spark_session``.
        """
        if self._spark is None:
            self._done.wait()  # what a start waits for is bounded there
        if self._error is not None:
            raise self._error
        if self._spark is None:
            raise ResourceError("Spark", "the session did not start", "see the trace above")
        return self._spark

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._thread.is_alive():
            self._done.wait(ABANDONED_START_TIMEOUT_S)
        self._closing.__exit__(kind, error, trace)

    def _start(self) -> None:
        try:
            self._spark = self._closing.enter_context(self._opening)
        except (SparkringError, PySparkException, Py4JError, OSError) as error:
            self._error = error
        finally:
            self._done.set()
