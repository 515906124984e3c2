"""The hosts on which ranks are going to start, asked first: do they run what the driver runs, and see its lake?

Runs on: driver (one function as a Spark task on every slot).
Takes:   a session whose slots are there; the lake.
Gives:   ``check_hosts``: nothing where all is well, else every fault with the hosts that have it.

In local mode there is no other host, and nobody is asked.
"""

from __future__ import annotations

import hashlib
import json
import platform as machine
import re
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession

from pipelines.errors import ResourceError, SparkringError, StalledError
from pipelines.lake.paths import Lake
from pipelines.launch.diagnosis import telling_line

PACKAGES = ("torch", "horovod", "pyarrow", "numpy")
MOST_CLOCK_DIFFERENCE_S = 60.0  # more, and what happened when cannot be told from the records
NAMED_HOSTS = 5
MISSING = "missing"
_OWN_PACKAGE = __name__.partition(".")[0]
_OURS = "sparkring"


TWICE = "of several that create an object at the same time, more than one is told that it did"


@dataclass(frozen=True)
class HostReport:
    """What one slot says of its host."""

    host: str
    versions: dict[str, str]  # of Python and packages; "missing"
    source: str  # hash of this project's modules there
    time_s: float  # Unix time
    lake: str | None  # what is wrong with the lake there
    created: bool = False  # it was told that it made what only one can make

    @staticmethod
    def told(content: dict[str, Any]) -> HostReport:
        """Of a host that may run another version of this."""
        return HostReport(str(content.get("host")), content.get("versions", {}), str(content.get("source")),
                          content.get("time_s", time.time()), content.get("lake"),
                          bool(content.get("created")))


@dataclass(frozen=True)
class Difference:
    """Between a host and the driver."""

    problem: str
    remedy: str


def check_hosts(spark: SparkSession, num_slots: int, lake: Lake, timeout_s: float) -> None:
    """Asks all slots at once.

    Raises:
        ResourceError: hosts have other versions or another clock than the driver, or do not see its lake.
        StalledError: they have not answered within ``timeout_s``.
    """
    mark = uuid.uuid4().hex
    own, key, began_s = report_of_host(), f".probe-{mark}", time.time()
    lake.store.put(key, mark)
    try:
        reports = [HostReport.told(json.loads(told)) for told in _told(spark, num_slots, lake.address, key, timeout_s)]
        ended_s = time.time()
        for slot, report in enumerate(reports):
            if report.lake is None and lake.store.facts(f"{key}-{slot}") is None:
                reports[slot] = replace(report, lake="the driver does not see what was written there")
        if sum(report.created for report in reports) > 1:  # one of them, or the driver, has made what only one can make
            reports = [replace(report, lake=report.lake or (TWICE if report.created else None)) for report in reports]
    finally:
        for each in (key, f"{key}-once", *(f"{key}-{slot}" for slot in range(num_slots))):
            lake.store.remove(each)
    hosts_of: dict[Difference, set[str]] = defaultdict(set)
    for report in reports:
        for difference in differences(report, own, began_s, ended_s, lake.store.place()):
            hosts_of[difference].add(report.host)
    if hosts_of:
        lines = [f"{_named(hosts)}: {each.problem}; {each.remedy}" for each, hosts in hosts_of.items()]
        raise ResourceError("the cluster's hosts", "\n  ".join(["are not as the driver:", *lines]))


def differences(there: HostReport, own: HostReport, began_s: float, ended_s: float, lake: str) -> list[Difference]:
    """What is another thing on a host.

    Args:
        own: the driver's. began_s, ended_s: when it began to ask, and had the answers. lake: as people name it.
    """
    theirs = {name: there.versions.get(name, MISSING) for name in own.versions}
    found = [Difference(f"{name} {theirs[name]}, the driver has {version}", "install the same versions on all hosts "
                        "(requirements.lock), or name the right Python in PYSPARK_PYTHON")
             for name, version in own.versions.items() if _public(theirs[name]) != _public(version)]
    if there.source != own.source:
        found.append(Difference(f"another source of {_OURS} than the driver's", "make the wheel again, and give it with "
                                "--py-files; or install the same version on all hosts"))
    ahead_s = there.time_s - min(max(there.time_s, began_s), ended_s)
    if abs(ahead_s) > MOST_CLOCK_DIFFERENCE_S:
        found.append(Difference(f"the clock is {abs(ahead_s):,.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the driver's",
                                "have the hosts set their clocks (NTP)"))
    if there.lake is not None:
        found.append(Difference(f"storage.root {lake} is not the driver's: {there.lake}", "mount the same folder under the same "
                                "path on all hosts, for the user that runs Spark to write to; or let all hosts reach the same "
                                "URL, with credentials to read and write there"))
    return found


def report_of_host(lake: str | None = None) -> HostReport:
    """Of this one. ``lake``: what is wrong with it here."""
    versions = {"Python": ".".join(machine.python_version_tuple()[:2]), **{name: _version(name) for name in PACKAGES}}
    return HostReport(socket.gethostname(), versions, _source_hash(), time.time(), lake)


def _told(spark: SparkSession, num_slots: int, root: str, key: str, timeout_s: float) -> list[str]:
    context, too_late = spark.sparkContext, threading.Event()
    slots = context.parallelize(range(num_slots), num_slots).barrier()  # all at once, so that each slot is asked

    def give_up() -> None:
        too_late.set()
        context.cancelJobGroup(key)

    context.setJobGroup(key, "are the hosts as the driver?", interruptOnCancel=True)
    giving_up = threading.Timer(timeout_s, give_up)
    giving_up.start()
    try:
        return list(slots.mapPartitions(partial(_report, root, key)).collect())
    except Py4JJavaError as error:
        if too_late.is_set():
            raise StalledError("launch.start_timeout_s", f"{num_slots} slots were not free at once within {timeout_s:g} s",
                               "let other jobs of this session end, or raise it") from error
        raise _unasked(str(error.java_exception)) from error
    finally:
        giving_up.cancel()
        with suppress(Py4JError):  # an interrupt has broken the connection off, and is what is to be told
            for name in ("spark.jobGroup.id", "spark.job.description", "spark.job.interruptOnCancel"):
                context._jsc.setLocalProperty(name, None)


def _unasked(message: str) -> ResourceError:
    """Why a task could not even answer."""
    place, lacking = "the cluster's hosts", re.search(r"No module named '([\w.]+)'", message)
    if lacking is not None and lacking[1].partition(".")[0] == _OWN_PACKAGE:
        return ResourceError(place, f"have no {_OURS}", "start with spark-submit --py-files dist/sparkring-*.whl, or install it "
                             "there")
    if lacking is not None:
        return ResourceError(place, f"have no {lacking[1]}", "install the packages of requirements.lock there")
    if "PYTHON_VERSION_MISMATCH" in message or "Cannot run program" in message:
        return ResourceError(place, f"do not have the driver's Python: {telling_line(message)}", "name the right one in "
                             "PYSPARK_PYTHON, or send an environment (sparkring submit --package)")
    return ResourceError(place, f"could not be asked: {telling_line(message)}", "see the executors' own logs")


def _report(root: str, key: str, _: Iterable[int]) -> Iterator[str]:
    """A Spark task's: reads in the lake what the driver wrote, and writes beside it."""
    store, wrong, created = Lake.at(root).store, None, False
    try:
        store.read(key)
        store.put(f"{key}-{BarrierTaskContext.get().partitionId()}", socket.gethostname())
        created = store.create(f"{key}-once", socket.gethostname())
    except FileNotFoundError:
        wrong = "what the driver has just written is not there"
    except OSError as error:
        wrong = f"cannot be read: {error.strerror or error}"
    except SparkringError as error:
        wrong = error.problem
    yield json.dumps(asdict(replace(report_of_host(wrong), created=created)))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return MISSING


def _public(version: str) -> str:
    """Without what names a build: torch for CPUs and for GPUs work together."""
    return version.partition("+")[0]


def _source_hash() -> str:
    """Of all modules, wherever they are imported from: a folder, or a wheel that is not unpacked."""
    digest = hashlib.sha256()
    for name, content in sorted(_sources(resources.files(_OWN_PACKAGE), "")):
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield f"{prefix}{entry.name}", entry.read_bytes()


def _named(hosts: Iterable[str]) -> str:
    names: list[Any] = sorted(hosts)
    more = len(names) - NAMED_HOSTS
    return ", ".join(names[:NAMED_HOSTS]) + (f" and {more:,} more" if more > 0 else "")
