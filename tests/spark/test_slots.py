"""Room for ranks: what master and settings promise, the wait for it, and the memory of a rank."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from pipelines.errors import ConfigError
from pipelines.spark import slots
from pipelines.spark.slots import Cluster, Worker, least_memory_bytes, usable_slots, wait_for_slots, workers_memory_bytes

GIB, MIB = 1024**3, 1024**2
STANDALONE, KUBERNETES = "spark://host:7077", "k8s://https://host:6443"


@pytest.fixture
def machine(monkeypatch):
    """A machine of 8 cores and 20 GiB."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(slots, "machine_memory_bytes", lambda: 20 * GIB)


@pytest.mark.parametrize(("master", "conf", "promised", "most"), [
    ("local", {}, 1, 1), ("local[3]", {}, 3, 3), ("local[3,2]", {}, 3, 3), ("local[*]", {}, 8, 8),
    ("local[7]", {"spark.task.cpus": 2}, 3, 3), ("local-cluster[3,5,512]", {"spark.task.cpus": 2}, 6, 6),
    ("yarn", {}, None, None),
    ("yarn", {"spark.executor.instances": 3, "spark.executor.cores": 4}, 12, 12),
    ("yarn", {"spark.executor.instances": 2, "spark.executor.cores": 3, "spark.task.cpus": 2}, 2, 2),
    (KUBERNETES, {"spark.executor.instances": 3, "spark.executor.cores": 4, "spark.executor.resource.gpu.amount": 2,
                  "spark.task.resource.gpu.amount": 1}, 6, 6),
    (STANDALONE, {}, None, None), (STANDALONE, {"spark.cores.max": 9, "spark.task.cpus": 2}, None, 4),
    (STANDALONE, {"spark.executor.instances": 3, "spark.executor.cores": 4}, None, None),  # standalone knows no instances
    (None, {"spark.executor.instances": 3, "spark.executor.cores": 4}, None, None),
])
def test_the_slots_that_master_and_settings_promise(machine, master, conf, promised, most):
    cluster = Cluster(master, conf)
    assert (cluster.promised_slots, cluster.most_slots) == (promised, most)


def test_an_automatic_layout_takes_no_more_local_slots_than_there_are_cores_for(machine):
    assert [usable_slots(Cluster("local[*]", {}), slots, 1) for slots in (3, 64)] == [3, 8]
    assert usable_slots(Cluster("local[8]", {}), 8, threads_per_rank=4) == 2
    assert usable_slots(Cluster(STANDALONE, {}), 64, threads_per_rank=4) == 64


def test_a_local_ranks_memory_is_a_share_of_the_machine_less_the_drivers_jvm(machine):
    assert Cluster("local[4]", {}).memory_bytes(2) == (18 - 1) * GIB // 2
    assert Cluster("local[4]", {"spark.driver.memory": "6g"}).memory_bytes(3) == (18 - 6) * GIB // 3
    assert Cluster("local[4]", {"spark.driver.memory": "60g"}).memory_bytes(3) == 0


@pytest.mark.parametrize("master", ["yarn", KUBERNETES])
@pytest.mark.parametrize(("conf", "each"), [
    ({"spark.executor.memory": "64g", "spark.executor.memoryOverhead": "2048", "spark.executor.cores": 4}, 512 * MIB),
    ({"spark.executor.memory": "2g"}, 384 * MIB),  # the least overhead that Spark gives
    ({"spark.executor.memory": "20g", "spark.executor.cores": 2}, GIB),  # a tenth
    ({"spark.executor.memory": "20g", "spark.executor.memoryOverheadFactor": 0.5, "spark.executor.cores": 4,
      "spark.task.cpus": 2}, 5 * GIB),
    ({"spark.executor.memory": "8g", "spark.executor.pyspark.memory": "12g", "spark.executor.cores": 4}, 3 * GIB),
])
def test_a_containers_heap_is_no_memory_for_ranks(master, conf, each):
    assert Cluster(master, conf).memory_bytes(num_slots=8) == each


def test_standalone_workers_must_be_asked_unless_spark_limits_their_python():
    assert Cluster(STANDALONE, {"spark.executor.memory": "64g", "spark.executor.cores": 4}).memory_bytes(8) is None
    assert Cluster(STANDALONE, {"spark.executor.pyspark.memory": "6g", "spark.executor.cores": 4}).memory_bytes(8) == 1536 * MIB


def test_the_worker_whose_ranks_have_least_counts_less_its_executors_heaps():
    large = [Worker("large", executor, 40 * GIB) for executor in (1, 1, 2, 2)]
    small = [Worker("small", 1, 10 * GIB)] * 2
    assert least_memory_bytes(large, heap_bytes=6 * GIB) == (36 - 2 * 6) * GIB // 4
    assert least_memory_bytes(large + small, heap_bytes=6 * GIB) == (9 - 6) * GIB // 2
    assert least_memory_bytes(small, heap_bytes=16 * GIB) == 0


@pytest.mark.processes
def test_workers_answer_from_a_task_on_every_slot(spark):
    machine = slots.machine_memory_bytes()
    assert workers_memory_bytes(spark, 2) == (int(0.9 * machine) - GIB) // 2


def test_a_containers_limit_is_the_machines_memory(tmp_path: Path, monkeypatch):
    limit, unlimited = tmp_path / "memory.max", tmp_path / "other.max"
    limit.write_text("3000000\n")
    unlimited.write_text("max\n")
    monkeypatch.setattr(slots, "CGROUP_LIMITS", (limit, unlimited, tmp_path / "missing"))
    assert slots.machine_memory_bytes() == 3_000_000


@pytest.mark.parametrize(("text", "size"), [
    ("512m", 512 * MIB), ("512", 512 * MIB), ("4GB", 4 * GIB), ("100b", 100), ("8k", 8192)])
def test_sizes_are_read_as_spark_reads_them(text, size):
    assert Cluster("yarn", {"spark.executor.memory": text}).size_bytes("spark.executor.memory", "1g") == size


def test_a_size_that_spark_would_not_take_is_named():
    with pytest.raises(ConfigError, match=r"spark.conf.spark.executor.memory: 'much' is not a size"):
        Cluster("yarn", {"spark.executor.memory": "much"}).memory_bytes(2)


class Arriving:
    """A session on a cluster whose executors come one after the other, by a clock of its own."""

    def __init__(self, monkeypatch, master, conf, slots_at):
        self.now, self.lines = 0.0, []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self._sleep)
        monkeypatch.setattr(Cluster, "of_session", staticmethod(lambda _: Cluster(master, conf)))
        monkeypatch.setattr(slots, "slots_now", lambda _: max(n for at, n in slots_at.items() if at <= self.now))

    def _sleep(self, seconds):
        self.now += seconds

    def wait(self, wanted, patience_s=120.0):
        return wait_for_slots(self, wanted, patience_s, self.lines.append)


def test_ranks_wait_for_executors_as_long_as_a_start_may_take_and_say_so(monkeypatch):
    cluster = Arriving(monkeypatch, "yarn", {}, {0: 0, 40: 1, 70: 4})
    assert cluster.wait(4) == 4
    assert 70 <= cluster.now < 71
    assert cluster.lines[0] == "waiting for 4 slots, 0 of 4 there"
    assert "waiting for 4 slots, 1 of 4 there" in cluster.lines
    assert 4 <= len(cluster.lines) <= 6
    assert cluster.wait(5, patience_s=30) == 4  # no longer than that
    assert 100 <= cluster.now < 102


def test_in_local_mode_nobody_waits(monkeypatch):
    cluster = Arriving(monkeypatch, "local[2]", {}, {0: 2})
    assert (cluster.wait(4), cluster.wait(None), cluster.now, cluster.lines) == (2, 2, 0.0, [])


def test_an_automatic_layout_waits_for_all_slots_that_are_promised(monkeypatch):
    conf = {"spark.executor.instances": 3, "spark.executor.cores": 2}
    cluster = Arriving(monkeypatch, "yarn", conf, {0: 2, 50: 4, 100: 6})
    assert cluster.wait(None) == 6
    assert cluster.lines[0] == "waiting for 6 slots, 2 of 6 there"
    assert Arriving(monkeypatch, "yarn", conf, {0: 2}).wait(None) == 2  # after all its patience


def test_where_no_number_is_promised_an_automatic_layout_waits_until_no_more_come(monkeypatch):
    arriving = dict(zip(itertools.count(5, 5), range(1, 5), strict=False))  # the last at 20 s
    cluster = Arriving(monkeypatch, STANDALONE, {}, {0: 0, **arriving})
    assert cluster.wait(None) == 4
    assert 20 + slots.STABLE_S <= cluster.now < 21 + slots.STABLE_S
    assert cluster.lines[0] == "waiting until no more slots come, 0 there"
    bounded = Arriving(monkeypatch, STANDALONE, {"spark.cores.max": 3}, {0: 0, **arriving})
    assert (bounded.wait(None), bounded.lines[0]) == (3, "waiting for 3 slots, 0 of 3 there")
    assert 15 <= bounded.now < 16
