"""Looks at the machine before a run does, and says what to fix.

Runs on: driver.
Takes:   the platform.
Gives:   ``check_all``: one ``Check`` per thing that a run needs, in the order in which it would need them.

Spark and Horovod are looked at in processes of their own: a broken library may crash the one that loads it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

from pipelines.config import Platform
from pipelines.errors import ResourceError, SparkringError
from pipelines.lake.object_store import REMEDY
from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore
from pipelines.lake.store_contract import tried
from pipelines.spark.java import find_java
from pipelines.spark.slots import Cluster, known_slots

GIB = 1024**3
LEAST_FREE_BYTES, GOOD_FREE_BYTES = GIB // 2, 5 * GIB
SPARK_BYTES, RANK_BYTES = 2 * GIB, GIB  # what a local session and a small model's rank take, roughly
PROBE_TIMEOUT_S = 180.0  # a first import of torch from a cold disk takes a while
REINSTALL = "rm -rf .venv && make setup"


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, what was found, and what to do about it ("" where nothing is to be done)."""

    name: str
    status: Literal["OK", "WARN", "FAIL"]
    found: str
    fix: str = ""


def check_all(platform: Platform) -> list[Check]:
    """Every check, also after one that fails."""
    return [check_java(), check_python(), check_spark(), check_pyarrow(platform), *check_horovod(platform),
            *check_network(platform), check_storage(platform), check_memory(platform), check_promised_slots(platform)]


def check_java() -> Check:
    try:
        java = find_java()
    except ResourceError as error:
        return Check("Java", "FAIL", f"{error.place}: {error.problem}", error.remedy)
    return Check("Java", "OK", f"{java.major} at {java.path}")


def check_python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] != (3, 11):
        return Check("Python", "FAIL", f"{version} at {sys.executable}", "use Python 3.11: make setup")
    return Check("Python", "OK", f"{version} at {sys.executable}")


def check_spark() -> Check:
    found, problem = _probe("import json, pyspark, pyspark.sql; print(json.dumps(pyspark.__version__))")
    if problem:
        return Check("Spark", "FAIL", problem, REINSTALL)
    home = os.environ.get("SPARK_HOME")
    release = Path(home, "RELEASE") if home else None
    if release and release.exists() and f"Spark {found} " not in release.read_text(encoding="utf-8", errors="replace"):
        return Check("Spark", "WARN", f"pyspark {found}, but SPARK_HOME ({home}) holds another version",
                     "unset SPARK_HOME, or install the same version there")
    return Check("Spark", "OK", f"pyspark {found}")


def check_pyarrow(platform: Platform) -> Check:
    try:
        version = metadata.version("pyarrow")
    except metadata.PackageNotFoundError:
        return Check("pyarrow", "FAIL", "not installed", REINSTALL)
    if int(version.split(".")[0]) > 14 and platform.reader.kind == "petastorm":
        return Check("pyarrow", "FAIL", f"{version}: petastorm reads with 14 and older",
                     f"install pyarrow 14.0.2 ({REINSTALL}), or set reader.kind to arrow")
    return Check("pyarrow", "OK", version)


def check_horovod(platform: Platform) -> list[Check]:
    found, problem = _probe(
        "import json, pathlib, torch, horovod, horovod.torch as hvd\n"
        "built = json.loads((pathlib.Path(horovod.__file__).parent / 'metadata.json').read_text())['pytorch']\n"
        "print(json.dumps(dict(version=horovod.__version__, built=built, torch=torch.__version__, "
        "gloo=bool(hvd.gloo_built()), nccl=bool(hvd.nccl_built()), cuda=torch.cuda.is_available())))")
    if problem:
        return [Check("Horovod", "FAIL", problem, REINSTALL)]
    said = f"{found['version']}, built for torch {found['built']}"
    if found["built"] != found["torch"]:
        horovod = Check("Horovod", "FAIL", f"{said}, but torch here is {found['torch']}", REINSTALL)
    elif not found["gloo"]:
        horovod = Check("Horovod", "FAIL", f"{said}, without gloo", REINSTALL)
    else:
        horovod = Check("Horovod", "OK", f"{said}; gradients travel by "
                        f"{'NCCL (and by Gloo on CPUs)' if found['nccl'] else 'Gloo'}{_why(nccl=found['nccl'])}")
    if platform.layout.device == "cpu":
        return [horovod]
    if not found["cuda"]:
        return [horovod, Check("GPU", "FAIL", "layout.device: cuda, but torch sees no GPU",
                               "set layout.device to cpu, or install a driver and a CUDA build of torch")]
    if not found["nccl"] and platform.layout.num_replicas != 1:  # one replica has nobody to average with
        return [horovod, Check("GPU", "FAIL", f"Horovod without NCCL cannot average what is on GPUs{_why(nccl=False)}",
                               f"mend that, then {REINSTALL}; or set layout.device to cpu")]
    return [horovod, Check("GPU", "OK", f"torch sees it, Horovod is {'with' if found['nccl'] else 'without'} NCCL")]


def _why(*, nccl: bool) -> str:
    """``: reason`` for the transport that Horovod has, as set-up left it (setup/horovod.sh); "" where it built another one."""
    try:
        transport, _, reason = Path(sys.prefix, "horovod-transport").read_text(encoding="utf-8").strip().partition(": ")
    except OSError:
        return ""
    return f": {reason}" if transport == ("nccl" if nccl else "gloo") else ""


def check_network(platform: Platform) -> list[Check]:
    """Loopback, this machine's name, and what the platform names: interface, fixed port, master."""
    checks = []
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
        checks.append(Check("loopback", "OK", "a port on 127.0.0.1 can be opened and reached"))
    except OSError as error:
        checks.append(Check("loopback", "FAIL", f"127.0.0.1: {error}", "bring the interface lo up (ip link set lo up)"))
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
        checks.append(Check("host name", "OK", f"{name} has an address"))
    except OSError as error:  # seen: Spark does not start, Horovod 0.28.1 crashes with SIGSEGV
        checks.append(Check("host name", "FAIL", f"{name}: {error.strerror or error}",
                            f"add a line to /etc/hosts: 127.0.0.1 {name}"))
    interface = platform.launch.network_interface
    if interface is not None and interface not in psutil.net_if_addrs():
        checks.append(Check("interface", "FAIL", f"launch.network_interface: there is no {interface!r}",
                            f"use one of {', '.join(sorted(psutil.net_if_addrs()))}, or null"))
    port = int(platform.spark.conf.get("spark.driver.port", 0))
    if port:
        try:
            socket.create_server((platform.spark.driver_host or "127.0.0.1", port)).close()
            checks.append(Check("driver port", "OK", f"{port} is free"))
        except OSError as error:
            checks.append(Check("driver port", "FAIL", f"spark.driver.port {port}: {error.strerror}",
                                "set another, or 0 for any"))
    address = re.match(r"spark://([^,]+):(\d+)", platform.spark.master or "")
    if address:
        try:
            socket.create_connection((address[1], int(address[2])), timeout=5).close()
            checks.append(Check("Spark master", "OK", f"{address[0]} answers"))
        except OSError as error:
            checks.append(Check("Spark master", "FAIL", f"{address[0]}: {error.strerror or error}",
                                "start it, or correct spark.master"))
    return checks


def check_storage(platform: Platform) -> Check:
    """The lake's folder, or the nearest one above it that is there, takes a file and has space left."""
    lake = Lake.at(platform.storage.address)
    if not lake.store.folders_appear_whole:
        checks = check_store(platform)
        return next((check for check in checks if check.status == "FAIL"), checks[0])
    root = lake.root
    folder = next(parent for parent in (root, *root.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("storage", "FAIL", f"{folder} cannot be written: {error.strerror}",
                     "fix permissions, or set storage.root to another folder")
    said = f"{free / GIB:.1f} GiB free at {root}"
    if free < LEAST_FREE_BYTES:
        return Check("storage", "FAIL", said, "free space, or set storage.root to another disk")
    if free < GOOD_FREE_BYTES:
        return Check("storage", "WARN", said, f"{GOOD_FREE_BYTES / GIB:.0f} GiB give room for data and models")
    return Check("storage", "OK", said)


def check_store(platform: Platform) -> list[Check]:
    """Every rule that a lake relies on, tried in a corner of ``storage.root`` of its own."""
    store = Lake.at(platform.storage.address).store.below(f".probe-{uuid.uuid4().hex}")
    try:
        return [Check(f"storage: {found.rule}", "OK" if found.holds else "FAIL", found.said, "" if found.holds else REMEDY)
                for found in tried(store)]
    finally:
        with suppress(SparkringError):  # which the checks have told
            for key in store.keys(""):
                store.remove(key)
        if isinstance(store, FolderStore):
            shutil.rmtree(store.root, ignore_errors=True)


def check_memory(platform: Platform) -> Check:
    available = psutil.virtual_memory().available
    if not _cluster(platform).on_one_machine:
        return Check("memory", "OK", f"{available / GIB:.1f} GiB available to the driver; ranks run on the cluster")
    if platform.layout.automatic:
        return Check("memory", "OK", f"{available / GIB:.1f} GiB available; auto chooses a layout that fits")
    ranks = platform.layout.num_ranks
    needed = SPARK_BYTES + ranks * RANK_BYTES
    said = f"{available / GIB:.1f} GiB available, about {needed / GIB:.0f} needed by Spark and {ranks} ranks"
    if available < needed:
        return Check("memory", "WARN", said, "end other programs, or lower layout.num_replicas")
    return Check("memory", "OK", said)


def check_promised_slots(platform: Platform) -> Check:
    """The slots that the master promises, and this machine's cores, against the ranks; a cluster's slots are counted when a
    run starts."""
    if platform.layout.automatic:
        room = known_slots(platform)
        return Check("slots", "OK", "auto: the layout is chosen when a run starts, from the cluster's slots" if room is None else
                     f"auto: a layout of at most {room} ranks will be chosen; --dry-run of a job shows which")
    ranks, cores = platform.layout.num_ranks, psutil.cpu_count() or 1
    cluster = _cluster(platform)
    slots = cluster.promised_slots if cluster.on_one_machine else None
    if slots is None:
        return Check("slots", "OK", f"{ranks} ranks; the cluster's slots are counted when a run starts")
    if slots < ranks:
        return Check("slots", "FAIL", f"spark.master: {platform.spark.master} has {slots} slots for {ranks} ranks",
                     f"set spark.master to local[{ranks}] or more, or lower layout.num_replicas")
    threads_per_rank = platform.layout.threads_per_rank
    said = f"{slots} slots, {ranks} ranks x {threads_per_rank} threads, {cores} cores"
    if ranks * threads_per_rank > cores:
        return Check("slots", "WARN", said,
                     "lower layout.num_replicas or layout.threads_per_rank: ranks wait for each other")
    return Check("slots", "OK", said)


def _cluster(platform: Platform) -> Cluster:
    """By the platform alone: what is asked is whether it fits, not what a session that is running has."""
    return Cluster(platform.spark.master, platform.spark.conf)


def _probe(code: str) -> tuple[Any, str]:
    """What the code prints as JSON in its last line, or the problem in one line."""
    try:
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, errors="replace",
                                timeout=PROBE_TIMEOUT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return None, f"does not load within {PROBE_TIMEOUT_S:.0f} s"
    if answer.returncode != 0:
        said = [line for line in answer.stderr.splitlines() if line.strip()]
        return None, f"does not load: {said[-1].strip() if said else f'exit code {answer.returncode}'}"
    return json.loads(answer.stdout.splitlines()[-1]), ""
