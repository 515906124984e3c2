"""What an automatic layout has to do with: slots, and the memory of a rank on each.

Runs on: driver.
Takes:   the platform; the session, where there is one.
Gives:   ``Room``: ``room_there`` once the executors are, ``room_known`` before.
"""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import SparkSession

from pipelines.config import Platform
from pipelines.errors import ResourceError
from pipelines.launch.rendezvous import MAX_RING_SIZE
from pipelines.plan.layout import Room
from pipelines.spark.slots import Cluster, known_slots, usable_slots, wait_for_slots, workers_memory_bytes


def room_there(spark: SparkSession, platform: Platform, say: Callable[[str], None]) -> Room:
    """Waits for the executors of a cluster.

    Raises:
        ResourceError: none came.
    """
    cluster = Cluster.of_session(spark)
    there = wait_for_slots(spark, None, platform.launch.start_timeout_s, say)
    if there == 0:
        raise ResourceError("spark.master", f"{cluster.master}: no executor came within {platform.launch.start_timeout_s:g} s",
                            "see what the cluster says of this application, or raise launch.start_timeout_s")
    slots = usable_slots(cluster, there, platform.layout.threads_per_rank)
    memory = platform.layout.memory_per_rank_bytes
    memory = cluster.memory_bytes(slots) if memory is None else memory
    return Room(slots, workers_memory_bytes(spark, slots) if memory is None else memory, MAX_RING_SIZE)


def room_known(platform: Platform) -> Room | None:
    """The same as far as the platform tells without a session; None where it does not."""
    slots, memory = known_slots(platform), platform.layout.memory_per_rank_bytes
    if slots is None:
        return None
    memory = Cluster.of(platform).memory_bytes(slots) if memory is None else memory
    return None if memory is None else Room(slots, memory, MAX_RING_SIZE)
