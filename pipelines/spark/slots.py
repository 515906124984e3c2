"""How many ranks there is room for, and how much memory each may use: the only reader of master strings and executor sizes.

Runs on: driver (one function as a Spark task).
Takes:   a master and Spark's settings, from the platform or from a session.
Gives:   slots: those that are promised, those that are there, the wait in between; the memory of a rank.

What memory a rank has (``layout.memory_per_rank_bytes`` overrides all of it). A rank is a child of a Spark task's Python
worker, outside of the JVM's heap:

    local mode    nine tenths of the machine (or container), less the driver's JVM, shared by the slots
    YARN, K8s     what the container has beside the heap, its overhead, shared by the executor's slots
    standalone    no container bounds a rank: nine tenths of a worker's machine, less its executors' heaps, shared by
                  its slots; the worker whose ranks have least counts, asked in a Spark job
    everywhere    no more than ``spark.executor.pyspark.memory`` / executor cores, which Spark sets as a limit where given
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from pipelines.config import Platform
from pipelines.errors import ConfigError, SparkringError
from pipelines.spark.running_session import running_session

USABLE_SHARE = 0.9  # of a machine's memory: the rest is the system's and the driver's or worker's Python
STABLE_S = 10.0  # no further slot for so long: no more are coming
POLL_S = 0.2
SAY_CHANGE_EVERY_S, SAY_EVERY_S = 2.0, 20.0
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # v2, v1
_LOCAL = re.compile(r"local(?:\[(\d+|\*)(?:,\d+)?\])?")
_LOCAL_CLUSTER = re.compile(r"local-cluster\[(\d+),(\d+),(\d+)\]")
# What YARN and Kubernetes give where nobody says another number
_CONTAINER_DEFAULTS = {"spark.executor.instances": "2", "spark.executor.cores": "1"}


@dataclass(frozen=True)
class Cluster:
    """What a master and Spark's settings say of executors and slots. ``master`` None: only spark-submit knows."""

    master: str | None
    conf: Mapping[str, Any]

    @staticmethod
    def of(platform: Platform) -> Cluster:
        """As far as the platform says; where a session is running, that is the one that will be used."""
        running = running_session()
        return Cluster(platform.spark.master, platform.spark.conf) if running is None else Cluster.of_session(running)

    @staticmethod
    def of_session(spark: SparkSession) -> Cluster:
        """With what spark-submit and ``spark-defaults.conf`` said too, and the cluster's own defaults."""
        master, conf = str(spark.sparkContext.master), dict(spark.sparkContext.getConf().getAll())
        return Cluster(master, (_CONTAINER_DEFAULTS if in_containers(master) else {}) | conf)

    @property
    def local(self) -> bool:
        """One process: the slots that are not there at the start never come."""
        return _LOCAL.fullmatch(self.master or "") is not None

    @property
    def on_one_machine(self) -> bool:
        """Whether its ranks run on the driver's machine."""
        return self.local or _LOCAL_CLUSTER.fullmatch(self.master or "") is not None

    @property
    def promised_slots(self) -> int | None:
        """How many tasks will run at once when all executors are there; None where the settings do not say."""
        local, together = _LOCAL.fullmatch(self.master or ""), _LOCAL_CLUSTER.fullmatch(self.master or "")
        if local is not None:
            given = local[1] or "1"
            return (int(given) if given.isdigit() else os.cpu_count() or 1) // self._task_cpus
        if together is not None:
            return int(together[1]) * (int(together[2]) // self._task_cpus)
        if in_containers(self.master) and "spark.executor.instances" in self.conf and self.slots_per_executor is not None:
            return int(self.conf["spark.executor.instances"]) * self.slots_per_executor
        return None

    @property
    def most_slots(self) -> int | None:
        """No more tasks than this will ever run at once; None where the settings do not say."""
        cores = None if self.local or in_containers(self.master) else self.conf.get("spark.cores.max")
        return self.promised_slots if cores is None else int(cores) // self._task_cpus

    @property
    def slots_per_executor(self) -> int | None:
        """None where an executor takes all cores that its worker has."""
        if "spark.executor.cores" not in self.conf:
            return None
        gpus, per_task = (float(self.conf.get(f"spark.{of}.resource.gpu.amount", 0)) for of in ("executor", "task"))
        by_cores = int(self.conf["spark.executor.cores"]) // self._task_cpus
        return min(by_cores, int(gpus / per_task)) if gpus and per_task else by_cores

    @property
    def _task_cpus(self) -> int:
        return int(self.conf.get("spark.task.cpus", 1))

    def size_bytes(self, key: str, default: str) -> int:
        """A setting in Spark's way of writing sizes: 512m, 4g; a bare number is MiB.

        Raises:
            ConfigError: it is none.
        """
        text = str(self.conf.get(key, default))
        match = re.fullmatch(r"(\d+)\s*([kmgtp]b?|b)?", text.strip().lower())
        if match is None:
            raise ConfigError(SparkringError(f"spark.conf.{key}", f"{text!r} is not a size", "for example 4g"))
        return int(match[1]) * 1024 ** "bkmgtp".index((match[2] or "m")[0])

    def memory_bytes(self, num_slots: int) -> int | None:
        """What each of so many ranks may use; None where only the workers know (see ``workers_memory_bytes``)."""
        limits = []
        if self.local:
            free = USABLE_SHARE * machine_memory_bytes() - self.size_bytes("spark.driver.memory", "1g")
            limits.append(max(0, int(free)) // num_slots)
        elif in_containers(self.master) and "spark.executor.pyspark.memory" not in self.conf:
            limits.append(self._overhead_bytes // (self.slots_per_executor or 1))
        if "spark.executor.pyspark.memory" in self.conf:  # an address space of its own for each worker
            cores = int(self.conf.get("spark.executor.cores", 1))
            limits.append(self.size_bytes("spark.executor.pyspark.memory", "0") // cores)
        return min(limits, default=None)

    @property
    def _overhead_bytes(self) -> int:
        """Source: ``spark.executor.memoryOverhead`` and its factor in Spark's configuration page."""
        if "spark.executor.memoryOverhead" in self.conf:
            return self.size_bytes("spark.executor.memoryOverhead", "0")
        general, kubernetes = "spark.executor.memoryOverheadFactor", "spark.kubernetes.memoryOverheadFactor"
        factor = float(self.conf.get(general, self.conf.get(kubernetes, 0.1)))
        return max(self.size_bytes("spark.executor.minMemoryOverhead", "384m"),
                   int(factor * self.size_bytes("spark.executor.memory", "1g")))


def in_containers(master: str | None) -> bool:
    """Whether executors (and their folders) are containers of their own."""
    return (master or "").startswith(("yarn", "k8s://"))


def usable_slots(cluster: Cluster, slots: int, threads_per_rank: int) -> int:
    """Of so many slots, those an automatic layout takes: in local mode, no more than there are cores for."""
    return max(1, min(slots, (os.cpu_count() or 1) // threads_per_rank)) if cluster.local else slots


def known_slots(platform: Platform) -> int | None:
    """How many ranks an automatic layout may have, where the platform tells it."""
    cluster = Cluster.of(platform)
    promised = cluster.promised_slots
    return None if promised is None else usable_slots(cluster, promised, platform.layout.threads_per_rank)


def slots_now(spark: SparkSession) -> int:
    """How many tasks can run at once, by the count with which Spark itself admits a barrier stage."""
    context = spark.sparkContext._jsc.sc()
    return int(context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile()))


def wait_for_slots(spark: SparkSession, wanted: int | None, patience_s: float, say: Callable[[str], None]) -> int:
    """How many tasks can run at once, after the executors of a cluster have had time to come. In local mode no wait.

    Args:
        wanted: enough slots. None asks for all: as many as the settings promise (YARN and Kubernetes: instances x cores);
            where they promise none (standalone; ``spark.cores.max`` is only a bound), those that are there when none
            has come for STABLE_S.
        patience_s: the longest wait.
        say: takes lines that say what is waited for: one at once, then now and then.
    """
    cluster = Cluster.of_session(spark)
    target = cluster.most_slots if wanted is None else wanted
    settles = wanted is None and cluster.promised_slots is None
    began = last_came = time.monotonic()
    there, said, said_at = -1, -1, began
    while True:
        now, before, there = time.monotonic(), there, slots_now(spark)
        last_came = now if there != before else last_came
        enough = cluster.local or (target is not None and there >= target)
        settled = settles and there > 0 and now - last_came >= STABLE_S
        if enough or settled or now - began >= patience_s:
            return there
        if said < 0 or now - said_at >= (SAY_EVERY_S if there == said else SAY_CHANGE_EVERY_S):
            said, said_at = there, now
            say(f"waiting until no more slots come, {there} there" if target is None
                else f"waiting for {target} slots, {there} of {target} there")
        time.sleep(POLL_S)


def machine_memory_bytes() -> int:
    """This machine's memory, or that of the container that it is."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [text for path in CGROUP_LIMITS if path.exists() and (text := path.read_text().strip()).isdigit()]
    return min([machine, *map(int, limits)])


@dataclass(frozen=True)
class Worker:
    """Where one of the slots is."""

    host: str
    executor: int  # tells the executors of a host apart
    memory_bytes: int  # of the machine


def workers_memory_bytes(spark: SparkSession, num_slots: int) -> int:
    """What each rank may use on workers that bound nobody: asks them, with a task on every slot at once."""
    heap = Cluster.of_session(spark).size_bytes("spark.executor.memory", "1g")
    slots = spark.sparkContext.parallelize(range(num_slots), num_slots).barrier().mapPartitions(_this_worker).collect()
    return least_memory_bytes([Worker(*slot) for slot in slots], heap)


def least_memory_bytes(slots: Iterable[Worker], heap_bytes: int) -> int:
    """The memory of a rank on the host whose ranks have least.

    Args:
        slots: one entry for each. heap_bytes: of one executor's JVM.
    """
    by_host: dict[str, list[Worker]] = defaultdict(list)
    for slot in slots:
        by_host[slot.host].append(slot)
    return min(max(0, int(USABLE_SHARE * here[0].memory_bytes) - heap_bytes * len({slot.executor for slot in here})) // len(here)
               for here in by_host.values())


def _this_worker(_: Any) -> Iterator[tuple[str, int, int]]:
    yield socket.gethostname(), os.getppid(), machine_memory_bytes()  # one process forks all workers of an executor
