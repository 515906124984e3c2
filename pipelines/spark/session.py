"""The Spark session of every job: same settings, quiet console, clear errors, nothing left behind.

Runs on: driver.
Takes:   the platform and the application's name.
Gives:   ``spark_session``, a context manager.

Executors run Python functions of ``pipelines``: where it is not installed on a cluster's machines, start the job with
``spark-submit --py-files sparkring-*.whl``.
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines.config import Platform
from pipelines.config.checks import UNFIT_SETTINGS
from pipelines.errors import ConfigError, ResourceError, SparkringError
from pipelines.interrupts import before_interrupts, held_interrupts
from pipelines.spark.gateway import (
    JVM_STOP_TIMEOUT_S,
    LOOPBACK,
    drop_connection,
    end_jvm,
    raise_if_ended,
    start_jvm,
    try_within,
)
from pipelines.spark.java import find_java
from pipelines.spark.running_session import running_session
from pipelines.spark.scratch import Scratch
from pipelines.spark.slots import in_containers

PACKAGES = (".zip", ".egg", ".jar", ".whl")  # --py-files that executors import from: Spark's own endings, and a wheel's
CONNECT_TIMEOUT_S = 5.0


@contextmanager
def spark_session(platform: Platform, app_name: str) -> Iterator[SparkSession]:
    """Yields a session and ends it with all its processes. A session that is already running is used and left running.

    Raises:
        ConfigError: no master, two different masters, or a setting that a gang of ranks cannot work with.
        ResourceError: no Java, no master at the address, a port in use.
    """
    running = running_session()
    if running is not None:
        _refuse_unfit(running.sparkContext.getConf())
        yield running
        return
    find_java()
    master = requested_master(platform)
    _check_reachable(master)
    scratch = Scratch.new()
    gateway: Any = None
    ours = False  # whether the JVM is ours to end
    try:
        with held_interrupts():  # a JVM that is still starting has no handle to end it by
            gateway, ours = start_jvm(_settings(platform, master, app_name), scratch)
        with before_interrupts(partial(drop_connection, gateway)):
            spark = _start_session(gateway, platform, master, app_name, scratch)
            try:
                yield spark
            finally:
                try_within(JVM_STOP_TIMEOUT_S, spark.stop)
    except (PySparkException, Py4JError, ConnectionError) as error:
        if ours:
            raise_if_ended(gateway, scratch.log, error)
            error.add_note(f"Spark's own log: {scratch.log}")
        raise
    finally:
        if ours:
            end_jvm(gateway)
        scratch.remove(sys.exception())


def requested_master(platform: Platform) -> str | None:
    """The master to ask for; None leaves spark-submit's in place.

    Raises:
        ConfigError: there is none: not in the platform, nor from spark-submit, nor in a running session; or it is Spark
            Connect's.
    """
    master = platform.spark.master
    _refuse_connect(platform)
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ or "--master" in os.environ.get("PYSPARK_SUBMIT_ARGS", "")
    if master is None and not submitted and running_session() is None:
        raise ConfigError(SparkringError(
            "spark.master", "null takes spark-submit's, but this was not started by spark-submit",
            "set it (for example local[4]), or start with spark-submit --master ..."))
    return master


def _refuse_connect(platform: Platform) -> None:
    """A client of Spark Connect has no scheduler to start a gang of ranks with."""
    conf, master = platform.spark.conf, platform.spark.master or ""
    remote = {"spark.master": master if master.startswith("sc://") else None, "spark.conf.spark.remote": conf.get("spark.remote"),
              "SPARK_REMOTE": os.environ.get("SPARK_REMOTE"),
              "spark.conf.spark.api.mode": "connect" if conf.get("spark.api.mode") == "connect" else None}
    for place, value in remote.items():
        if value:
            raise ConfigError(SparkringError(
                place, f"{value} is Spark Connect, whose clients cannot start ranks: it has no barrier stages", "take it away, "
                "and start the job with spark-submit --master ... on a machine that reaches the cluster"))


def _check_reachable(master: str | None) -> None:
    """Spark would try for a minute and then fail with a Java trace: ask first."""
    if master is None or not master.startswith("spark://"):
        return
    problem = ""
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
            return
        except ValueError:
            raise ConfigError(SparkringError("spark.master", f"{master} is not of the form spark://host:port",
                                             "for example spark://127.0.0.1:7077")) from None
        except OSError as error:
            problem = error.strerror or str(error)
    raise ResourceError("spark.master", f"no Spark master answers at {master} ({problem})",
                        "start it, correct the address, or use local[N]")


def _on_loopback(master: str | None) -> bool:
    return master is not None and re.match(r"local\b|local\[|spark://(127\.|localhost\b)", master) is not None


def _settings(platform: Platform, master: str | None, app_name: str) -> dict[str, str]:
    """What we ask of Spark; ``spark.conf`` of the platform has the last word."""
    bound_s = max(1, math.ceil(platform.launch.start_timeout_s))
    settings = {
        "spark.app.name": app_name,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.speculation": "false",
        "spark.barrier.sync.timeout": str(bound_s),  # Spark's default is a year
        # a gang that finds no slots fails after 2 x 5 s, not 40 x 15 s
        "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "5s",
        "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "2",
    }
    if master is not None:
        settings["spark.master"] = master
    if platform.spark.driver_host is not None:
        settings["spark.driver.host"] = platform.spark.driver_host
    elif _on_loopback(master):
        settings |= {"spark.driver.host": LOOPBACK, "spark.driver.bindAddress": LOOPBACK}
    settings |= {key: str(value).lower() if isinstance(value, bool) else str(value)
                 for key, value in platform.spark.conf.items()}
    return settings


def _start_session(gateway: Any, platform: Platform, master: str | None, app_name: str, scratch: Scratch
                   ) -> SparkSession:
    """
    Raises:
        ConfigError: spark-submit's settings contradict the platform's, or a gang of ranks cannot work with them.
        ResourceError: Spark did not start.
    """
    conf = SparkConf(_jvm=gateway.jvm)  # holds what spark-submit and spark-defaults.conf say
    given = conf.get("spark.master")
    if gateway.proc is None and master is not None and given not in (None, "local[*]", master):
        # local[*] is what spark-submit takes when it is given none, so it is no contradiction
        raise ConfigError(SparkringError("spark.master", f"{master}, but spark-submit was given {given}",
                                         "set it to null (--set spark.master=null) to take spark-submit's"))
    in_pod = conf.get("spark.kubernetes.submitInDriver") == "true"  # of a driver's own pod Spark has said where things lie there
    in_cluster = in_pod or conf.get("spark.submit.deployMode") == "cluster"  # and the driver's address is Spark's to say
    for key, value in _settings(platform, master or given, app_name).items():
        given_there = in_pod and key.startswith("spark.kubernetes.") and conf.contains(key)
        if not given_there and not (in_cluster and key == "spark.driver.host"):
            conf.set(key, value)
    if not in_containers(conf.get("spark.master")):  # there the setting would be a path inside of executors
        conf.set("spark.local.dir", scratch.local_dirs(conf.get("spark.local.dir")))
    _refuse_unfit(conf)
    interrupt = signal.getsignal(signal.SIGINT)
    SparkContext.PACKAGE_EXTENSIONS = PACKAGES
    try:
        context = SparkContext(conf=conf, gateway=gateway)
    except (Py4JJavaError, PySparkException) as error:
        raise ResourceError("Spark", f"the session did not start: {_reason(error)}",
                            f"see {scratch.log}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)  # Spark put its own handler; signals are the job's to handle
    if gateway.proc is None:
        context.setLogLevel("ERROR")  # spark-submit's JVM shares the job's console
    return SparkSession.builder.getOrCreate()


def _refuse_unfit(conf: SparkConf) -> None:
    faults = [SparkringError(key, f"true: {why}", f"set it to false under spark.conf, or with --conf {key}=false")
              for key, why in UNFIT_SETTINGS.items() if (conf.get(key) or "").lower() == "true"]
    if faults:
        raise ConfigError(faults)


def _reason(error: Py4JJavaError | PySparkException) -> str:
    """The first line of the innermost cause, without the trace."""
    if not isinstance(error, Py4JJavaError):
        return str(error).partition("\n")[0]
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    return str(cause.toString()).partition("\n")[0]
