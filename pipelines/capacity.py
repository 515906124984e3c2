"""How many ranks there is room for, and how much memory each may use.

Runs on: driver.
Takes:   the platform; the session, where there is one.
Gives:   numbers for the automatic layout.
"""

from __future__ import annotations

import os
import re

from pyspark.sql import SparkSession

from pipelines.config import Platform
from pipelines.errors import ConfigError, SparkringError
from pipelines.session import slots


def known_slots(platform: Platform) -> int | None:
    """How many ranks a platform has room for, where that is known without a session."""
    local = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\d+)?\])?", platform.spark.master or "")
    if local is not None:
        given = local[1] or "1"
        return _usable(int(given) if given.isdigit() else os.cpu_count() or 1, platform)
    instances, cores = (platform.spark.conf.get(f"spark.executor.{what}") for what in ("instances", "cores"))
    if instances is not None:
        return int(instances) * int(cores or 1) // int(platform.spark.conf.get("spark.task.cpus", 1))
    return None


def free_slots(spark: SparkSession, platform: Platform) -> int:
    """How many ranks the session has room for. In local mode, no more than there are cores for."""
    available = slots(spark)
    return _usable(available, platform) if str(spark.sparkContext.master).startswith("local") else available


def _usable(local_slots: int, platform: Platform) -> int:
    return max(1, min(local_slots, (os.cpu_count() or 1) // platform.layout.threads_per_rank))


def slot_memory_bytes(platform: Platform, num_slots: int) -> int:
    """What one rank may use: as the platform says, or a share of the executor's or the machine's memory."""
    if platform.layout.memory_per_rank_bytes is not None:
        return platform.layout.memory_per_rank_bytes
    conf = platform.spark.conf
    if (platform.spark.master or "local").startswith("local") or "spark.executor.memory" not in conf:
        return int(0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // num_slots
    executor = sum(_size_bytes(str(conf[key])) for key in ("spark.executor.memory", "spark.executor.memoryOverhead")
                   if key in conf)
    return executor // max(1, int(conf.get("spark.executor.cores", 1)) // int(conf.get("spark.task.cpus", 1)))


def _size_bytes(text: str) -> int:
    """Spark's way of writing sizes: 512m, 4g; a bare number is MiB."""
    match = re.fullmatch(r"(\d+)\s*([kmgt]?)b?", text.strip().lower())
    if match is None:
        raise ConfigError(SparkringError("spark.conf.spark.executor.memory", f"{text!r} is not a size", "for example 4g"))
    return int(match[1]) * 1024 ** {"k": 1, "": 2, "m": 2, "g": 3, "t": 4}[match[2]]
