"""The platform: where a recipe runs and how fast; it never changes what is learned.

Runs on: driver and ranks.
Takes:   the mapping read from ``conf/platforms/*.yaml`` (see ``load.py``).
Gives:   ``Platform``, a frozen typed model; unknown keys are refused.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from pipelines.config.secrets import has_credentials, is_option_secret, masked_settings, settings_in
from pipelines.config.section import Bytes, Count, Fraction, Section, Whole

Seconds = Annotated[float, Field(gt=0.0, le=365 * 24 * 3600.0)]  # more overflows the clocks that wait for it
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
CACHE_BYTES = 64 * 1024**3
_LAKE_URL = re.compile(r"file:/.|[A-Za-z][A-Za-z0-9+.-]+://[^/]+")


class Spark(Section):
    """The Spark session. ``master: null`` takes what spark-submit was given."""

    master: str | None = "local[4]"
    driver_host: str | None = None  # address that executors and ranks reach the driver at; local mode: loopback
    # any further Spark setting; in every saved or shown form the values of secrets are masked
    conf: Annotated[dict[str, str | int | float | bool], PlainSerializer(masked_settings)] = Field(default_factory=dict)


class Storage(Section):
    """The lake: a folder that driver, executors and ranks see under the same path, or the URL of a store of objects."""

    root: str = Field(default="./lake", min_length=1)
    # of a lake at a URL:
    options: dict[str, Any] = Field(default_factory=dict)  # of its file system, as fsspec takes them: {endpoint_url: ...}
    cache_bytes: Bytes = CACHE_BYTES  # copies of its objects on each machine's disk, at most
    cache_folder: str | None = None  # where they lie; null: the machine's temporary folder
    single_writer: bool = False  # no two processes ever write it at once: for stores that cannot keep them apart

    @field_validator("root")
    @classmethod
    def _whole(cls, root: str) -> str:
        if has_credentials(root):
            raise ValueError("has a user and a password, a token or a signature in it; leave them to the environment or the "
                             "machine's own role")
        if _URL.match(root) and not _LAKE_URL.match(root):
            raise ValueError("names no bucket; give a path, or a URL such as s3://bucket/prefix")
        return root

    @field_validator("options")
    @classmethod
    def _without_secrets(cls, options: dict[str, Any]) -> dict[str, Any]:
        secrets = [name for name, value in settings_in(options) if is_option_secret(name, value)]
        if secrets:
            raise ValueError(f"{', '.join(secrets)}: secrets are never stored; leave them to the environment "
                             "(AWS_ACCESS_KEY_ID and the like) or the machine's own role")
        return options

    @property
    def address(self) -> str:
        """What ``Lake.at`` takes, in one text that goes to every machine."""
        if not _URL.match(self.root):
            return self.root
        return json.dumps(self.model_dump(exclude_none=True), sort_keys=True)


AUTO = 0  # stands for "auto" until the layout is chosen (plan/layout.py); never in a run's saved config


ALL_AUTO = {"num_replicas": "auto", "num_segments": "auto", "micro_batch_samples": "auto"}  # what ``layout: auto`` means


def _auto_is_zero(value: Any) -> Any:
    if value == "auto":
        return AUTO
    if type(value) is int and value < 1:
        raise ValueError("use a number from 1 on, or auto")
    return value


def _zero_is_auto(value: int) -> int | str:
    return value or "auto"


CountOrAuto = Annotated[Whole, Field(ge=0, le=2**31 - 1), BeforeValidator(_auto_is_zero), PlainSerializer(_zero_is_auto)]


class Layout(Section):
    """Ranks and what each computes. ranks = num_replicas x num_segments.

    ``layout: auto`` leaves the three numbers to be chosen from the model, the slots and their memory.
    """

    num_replicas: CountOrAuto = 2
    num_segments: CountOrAuto = 1
    micro_batch_samples: CountOrAuto = 8  # samples of one forward/backward on one replica, at most
    threads_per_rank: Annotated[Whole, Field(ge=1, le=4096)] = 1
    device: Literal["cpu", "cuda"] = "cpu"
    compile: bool = False  # torch.compile
    # of a split model:
    schedule: Literal["gpipe", "1f1b", "interleaved_1f1b", "zero_bubble"] = "1f1b"
    parts_per_rank: Annotated[Whole, Field(ge=2, le=1024)] = 2  # interleaved_1f1b and zero_bubble: parts that a rank holds
    # where it is cut: so that parts cost (or weigh) about the same, or the number of layers of each part
    cut: Literal["cost", "parameters"] | tuple[Count, ...] = "cost"
    # for auto:
    memory_per_rank_bytes: Bytes | None = None  # null: what Spark leaves beside the JVMs' heaps (spark/slots.py)
    max_bubble: Fraction = 0.25  # share of time in which a split model's ranks may wait for each other

    @model_validator(mode="before")
    @classmethod
    def _all_auto(cls, value: Any) -> Any:
        return ALL_AUTO if value == "auto" else value

    @property
    def automatic(self) -> bool:
        return AUTO in (self.num_replicas, self.num_segments, self.micro_batch_samples)

    @property
    def num_ranks(self) -> int:
        return self.num_replicas * self.num_segments


class Reader(Section):
    """How shards are read. Both kinds give identical samples in identical order."""

    kind: Literal["petastorm", "arrow"] = "petastorm"
    read_ahead_bytes: Bytes = 64 * 1024**2  # decoded rows waiting for the training thread, at most


class Launch(Section):
    """Bounds of every wait while ranks start, run and stop."""

    start_timeout_s: Seconds = 120.0  # from launch until all ranks have met; before, until a cluster's slots are there
    stall_timeout_s: Seconds = 600.0  # without a record of any kind from any rank
    stop_timeout_s: Seconds = 10.0  # from the request to stop until every rank is gone
    rendezvous_port: Annotated[Whole, Field(ge=0, lt=65536)] = 0  # on the driver, see Rendezvous
    network_interface: str | None = None  # for the allreduce; null: the one that reaches the driver
    trusted_network: bool = False  # ranks start although Spark's own traffic is protected, and theirs is not


class Communication(Section):
    """The allreduce of gradients."""

    bucket_bytes: Bytes = 8 * 1024**2
    overlap: bool = True  # start a bucket's allreduce while backward still runs
    cycle_time_ms: Annotated[float, Field(gt=0.0, le=10_000.0)] | None = None  # Horovod's; null: 1 % of a step, from 1 to 50


class Platform(Section):
    """The whole platform."""

    spark: Spark = Spark()
    storage: Storage = Storage()
    layout: Layout = Layout()
    reader: Reader = Reader()
    launch: Launch = Launch()
    communication: Communication = Communication()
