"""Room for ranks, from the platform alone."""

import os

import pytest

from pipelines.capacity import known_slots, slot_memory_bytes
from pipelines.config import Platform
from pipelines.errors import ConfigError

GIB = 1024**3


def platform(master, threads=1, memory=None, **conf):
    return Platform.model_validate({"spark": {"master": master, "conf": conf},
                                    "layout": {"threads_per_rank": threads, "memory_per_rank_bytes": memory}})


def test_local_slots_are_no_more_than_the_cores_have_room_for(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [known_slots(platform(master)) for master in ("local", "local[3]", "local[64]", "local[*]")] == [1, 3, 8, 8]
    assert known_slots(platform("local[8]", threads=4)) == 2


def test_a_clusters_slots_are_known_where_its_executors_are_counted():
    assert known_slots(platform("spark://host:7077")) is None
    assert known_slots(platform("spark://host:7077", **{"spark.executor.instances": 3, "spark.executor.cores": 4})) == 12


def test_memory_is_what_the_platform_says_or_a_share_of_an_executors():
    assert slot_memory_bytes(platform("local[2]", memory=5 * GIB), 2) == 5 * GIB
    executors = {"spark.executor.memory": "6g", "spark.executor.memoryOverhead": "2048", "spark.executor.cores": 4}
    assert slot_memory_bytes(platform("spark://host:7077", **executors), 8) == 2 * GIB
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < slot_memory_bytes(platform("local[2]"), 2) < machine / 2


def test_a_size_that_spark_would_not_take_is_named():
    with pytest.raises(ConfigError, match=r"spark.executor.memory: 'much' is not a size"):
        slot_memory_bytes(platform("spark://host:7077", **{"spark.executor.memory": "much"}), 2)
