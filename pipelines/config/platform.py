"""The platform: where a recipe runs and how fast; it never changes what is learned.

Runs on: driver and ranks.
Takes:   the mapping read from ``conf/platforms/*.yaml`` (see ``load.py``).
Gives:   ``Platform``, a frozen typed model; unknown keys are refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.recipe import Count, Section

Seconds = Annotated[float, Field(gt=0.0)]
Bytes = Annotated[int, Field(ge=1)]


class Spark(Section):
    """The Spark session. ``master: null`` takes what spark-submit was given."""

    master: str | None = "local[4]"
    driver_host: str | None = None  # address that executors and ranks reach the driver at; local mode: loopback
    conf: dict[str, str | int | float | bool] = Field(default_factory=dict)  # any further Spark setting


class Storage(Section):
    """The lake: a folder that driver, executors and ranks see under the same path."""

    root: str = Field(default="./lake", min_length=1)


class Layout(Section):
    """Ranks and what each computes. ranks = num_replicas x num_segments."""

    num_replicas: Count = 2
    num_segments: Count = 1
    micro_batch_samples: Count = 8  # samples of one forward/backward on one replica, at most
    threads_per_rank: Count = 1
    device: Literal["cpu", "cuda"] = "cpu"
    compile: bool = False  # torch.compile


class Reader(Section):
    """How shards are read. Both kinds give identical samples in identical order."""

    kind: Literal["petastorm", "arrow"] = "petastorm"
    read_ahead_bytes: Bytes = 64 * 1024**2  # decoded rows waiting for the training thread, at most


class Launch(Section):
    """Bounds of every wait while ranks start, run and stop."""

    start_timeout_s: Seconds = 120.0  # from launch until all ranks have met
    stall_timeout_s: Seconds = 600.0  # without a step from any rank
    stop_timeout_s: Seconds = 10.0  # from the request to stop until every rank is gone
    rendezvous_port: Annotated[int, Field(ge=0, lt=65536)] = 0  # on the driver; 0: any free one
    network_interface: str | None = None  # for the allreduce; null: the one that reaches the driver


class Communication(Section):
    """The allreduce of gradients."""

    bucket_bytes: Bytes = 8 * 1024**2
    overlap: bool = True  # start a bucket's allreduce while backward still runs
    cycle_time_ms: Annotated[float, Field(gt=0.0)] = 1.0  # Horovod's coordination cycle


class Platform(Section):
    """The whole platform."""

    spark: Spark = Spark()
    storage: Storage = Storage()
    layout: Layout = Layout()
    reader: Reader = Reader()
    launch: Launch = Launch()
    communication: Communication = Communication()
