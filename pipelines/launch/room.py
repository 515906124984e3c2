"""What an automatic layout has to do with: slots, and the memory of a rank on each.

Runs on: driver.
Takes:   the config; the session, where there is one.
Gives:   ``room`` once the executors are there, ``known_room`` before; ``chosen_layout`` for a room.
"""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import SparkSession

from pipelines.config import Platform
from pipelines.config.load import Config
from pipelines.errors import ResourceError
from pipelines.lake.manifest import Manifest
from pipelines.launch.rendezvous import MAX_RING_SIZE
from pipelines.models.facts import model_facts
from pipelines.plan.layout import Choice, choose_layout
from pipelines.plan.memory import FeedFacts
from pipelines.spark.slots import Cluster, known_slots, usable_slots, wait_for_slots, workers_memory_bytes


def room(spark: SparkSession, config: Config, say: Callable[[str], None]) -> tuple[int, int]:
    """How many ranks an automatic layout may have, and the memory of each, once the executors are there."""
    platform, cluster = config.platform, Cluster.of_session(spark)
    there = wait_for_slots(spark, None, platform.launch.start_timeout_s, say)
    if there == 0:
        raise ResourceError("spark.master", f"{cluster.master}: no executor came within {platform.launch.start_timeout_s:g} s",
                            "see what the cluster says of this application, or raise launch.start_timeout_s")
    slots = usable_slots(cluster, there, platform.layout.threads_per_rank)
    memory = platform.layout.memory_per_rank_bytes
    memory = cluster.memory_bytes(slots) if memory is None else memory
    return slots, workers_memory_bytes(spark, slots) if memory is None else memory


def known_room(platform: Platform) -> tuple[int, int] | None:
    """The same as far as the platform tells without a session; None where it does not."""
    slots, memory = known_slots(platform), platform.layout.memory_per_rank_bytes
    if slots is None:
        return None
    memory = Cluster.of(platform).memory_bytes(slots) if memory is None else memory
    return None if memory is None else (slots, memory)


def chosen_layout(config: Config, manifest: Manifest, num_slots: int, memory_bytes: int) -> Choice:
    """The layout for ``layout: auto`` on so many slots of so much memory.

    Raises:
        ResourceError, ConfigError: see ``plan/layout.py``.
    """
    recipe, platform = config.recipe, config.platform
    facts = model_facts(recipe, manifest)
    feed = FeedFacts.of(recipe.data, recipe.train.global_batch_samples, platform.reader, manifest)
    return choose_layout(facts, feed, recipe, platform.layout, num_slots, memory_bytes, max_replicas=MAX_RING_SIZE)
