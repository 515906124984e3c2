"""The Java process of a session: started with a quiet console, told when it is gone, ended with all it started.

Runs on: driver.
Takes:   Spark's settings; the session's scratch.
Gives:   ``start_jvm`` and ``end_jvm``; what keeps Py4J's connections and its log in order in between.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from py4j.clientserver import JavaClient
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway

from pipelines.config.secrets import is_secret
from pipelines.errors import ResourceError
from pipelines.spark.jvm import quick_start
from pipelines.spark.scratch import Scratch

LOOPBACK = "127.0.0.1"
JVM_STOP_TIMEOUT_S = 10.0
JVM_END_SEEN_WITHIN_S = 2.0  # from its closed socket to its exit code


def start_jvm(settings: dict[str, str], scratch: Scratch) -> tuple[Any, bool]:
    """The JVM's gateway, and whether we started it (spark-submit's own is its starter's to end).

    The console belongs to the job: what the JVM and Spark's Python workers print goes to the log. Secrets are left
    out here, since these settings are the JVM's command line; ``_start_session`` gives them.
    """
    _quiet_py4j()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if settings.get("spark.driver.host") == LOOPBACK:
        os.environ.setdefault("SPARK_LOCAL_IP", LOOPBACK)
    if SparkContext._gateway is not None:
        return SparkContext._gateway, False
    visible = SparkConf(loadDefaults=False)
    visible.setAll([(key, value) for key, value in settings.items() if not is_secret(key, settings)])
    try:
        with open(scratch.log, "ab") as output, quick_start(temporary=scratch.folder):
            gateway = launch_gateway(visible, {"stdout": output, "stderr": subprocess.STDOUT})
    except (PySparkException, OSError) as error:
        raise ResourceError("Spark", f"its Java process did not start: {_complaint(scratch.log) or error}",
                            f"see {scratch.log}") from error
    return gateway, gateway.proc is not None


def _complaint(log: Path) -> str | None:
    """The line in which Java says what is wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    complaint = next((line for line in lines if re.search("Exception|Error|Invalid", line)), None)
    return complaint and complaint.strip().removeprefix('Exception in thread "main" ')


def drop_connection(gateway: Any) -> None:
    """Has this thread's next call to the JVM take a new connection: on the old one the answer to the call that an interrupt
    broke off would be taken for its own."""
    client = gateway._gateway_client
    connection = client.get_thread_connection() if isinstance(client, JavaClient) else None  # others keep none for a thread
    if connection is not None:
        connection.close()


def raise_if_ended(gateway: Any, log: Path, error: BaseException) -> None:
    """Raises ResourceError where the cause of an error is that the JVM is gone."""
    if not isinstance(error, Py4JNetworkError | ConnectionError):
        return
    try:
        code = gateway.proc.wait(JVM_END_SEEN_WITHIN_S)
    except subprocess.TimeoutExpired:
        return
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    raise ResourceError("Spark", f"its Java process {how}" + (" (often: out of memory)" if -code == signal.SIGKILL else ""),
                        f"give it more memory (spark.conf: spark.driver.memory); its log: {log}") from error


def try_within(bound_s: float, call: Callable[[], None]) -> None:
    """Asks the JVM for something and waits no longer than that: one that was interrupted in a call may never answer."""
    def ask() -> None:
        with suppress(Py4JError, OSError):  # it may be gone already; then there is nothing to do
            call()

    asking = threading.Thread(target=ask, name="ask the JVM", daemon=True)
    asking.start()
    asking.join(bound_s)


def end_jvm(gateway: Any) -> None:
    """Ends the JVM and its Python workers, and lets a later session start a fresh one."""
    SparkContext._gateway = SparkContext._jvm = None
    try_within(JVM_STOP_TIMEOUT_S, gateway.shutdown)
    gateway.proc.stdin.close()  # the JVM ends when its input does
    try:
        gateway.proc.wait(JVM_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        gateway.proc.kill()
        gateway.proc.wait()


def _not_of_py4j(record: logging.LogRecord) -> bool:
    return "py4j" not in Path(record.pathname).parts


def _quiet_py4j() -> None:
    """Py4J logs each lost connection with its trace, partly to the root logger and from a thread of its own that outlives the
    session; what a lost connection means is told by the error that follows."""
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_not_of_py4j)
