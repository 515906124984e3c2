"""What refuses a run before anything is prepared or started.

Runs on: driver.
Takes:   the config; the session, where there is one.
Gives:   ``check_launch``, ``check_training_launch``: the checks without a session, for ``--dry-run`` and for the run;
         ``check_cluster``, which waits for a cluster's executors; ``check_shards_present``. Each names the setting or file and
         what would do.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from pyspark.sql import SparkSession

from pipelines.config.load import Config
from pipelines.config.platform import Launch, Layout
from pipelines.errors import EXIT_OK, ConfigError, DataError, ResourceError, SparkringError
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.launch.hosts import check_hosts
from pipelines.launch.interfaces import check_interface
from pipelines.launch.rendezvous import MAX_RING_SIZE
from pipelines.models.facts import check_origin
from pipelines.plan.layout import schedule_faults
from pipelines.spark.session import requested_master
from pipelines.spark.slots import Cluster, wait_for_slots

PROTECTIONS = ("spark.authenticate", "spark.network.crypto.enabled", "spark.ssl.enabled", "spark.ssl.rpc.enabled")
TORCH_TIMEOUT_S = 180.0  # a first import of torch from a cold disk takes a while


def check_launch(config: Config) -> None:
    """As far as platform and, in local mode, this machine tell; what cannot be known yet passes.

    Raises:
        ConfigError: no master, or Spark Connect's; more replicas than can find each other; a cluster that promises a protection
            which the ranks' traffic does not have.
        ResourceError: slots, network interface or GPUs that are not there.
    """
    platform, cluster = config.platform, Cluster.of(config.platform)
    layout = platform.layout
    requested_master(platform)
    check_replicas(layout)
    _check_protection(cluster, platform.launch)
    most = cluster.most_slots
    if most is not None and not layout.automatic:
        _check_room(layout, most, str(cluster.master))
    if cluster.local:
        check_interface(platform.launch.network_interface)
        if layout.device == "cuda":
            _check_gpus(layout, num_gpus())


def check_training_launch(config: Config) -> None:
    """The same, that the schedule of a split model can run the recipe's batch, and that there is a model to go on from, where
    one is named.

    Raises:
        ConfigError: it cannot. CheckpointError, DataError: there is none.
    """
    check_launch(config)
    layout = config.platform.layout
    if not layout.automatic and (faults := schedule_faults(config.recipe, layout)):
        raise ConfigError(faults)
    check_origin(config.recipe)


def check_cluster(spark: SparkSession, config: Config, lake: Lake, say: Callable[[str], None]) -> None:
    """Waits for the slots, on a cluster as long as ``launch.start_timeout_s``, and asks their hosts.

    Raises:
        ConfigError: a protection that the ranks' traffic does not have.
        ResourceError: the ranks cannot all run at once, or would on hosts that are not as the driver.
    """
    layout, cluster = config.platform.layout, Cluster.of_session(spark)
    _check_protection(cluster, config.platform.launch)
    free = wait_for_slots(spark, layout.num_ranks, config.platform.launch.start_timeout_s, say)
    _check_room(layout, free, str(spark.sparkContext.master))
    if not cluster.local:
        check_hosts(spark, free, lake, config.platform.launch.start_timeout_s)


def check_shards_present(lake: Lake, manifest: Manifest) -> None:
    """Raises DataError for a shard that is missing or of another size."""
    dataset = lake.dataset(manifest.name, manifest.version)
    if damage := manifest.damage(lake.store.below(dataset)):
        raise DataError(*damage, f"restore the file, or remove {lake.store.place(dataset)} and prepare again")


def _check_protection(cluster: Cluster, launch: Launch) -> None:
    """What ranks send each other, gradients and activations, goes over plain connections."""
    on = [key for key in PROTECTIONS if str(cluster.conf.get(key, "false")).lower() == "true"]
    if on and not cluster.on_one_machine and not launch.trusted_network:
        raise ConfigError(SparkringError(
            "launch.trusted_network", f"false, but {on[0]} protects what Spark's processes send each other, and what the ranks "
            "do is not encrypted", "set it to true where the hosts' network is trusted, or encrypted itself"))


def _check_room(layout: Layout, slots: int, master: str) -> None:
    needed = layout.num_ranks
    if needed > slots:
        fewer = (f"layout.num_replicas to at most {slots // layout.num_segments}" if layout.num_segments <= slots
                 else f"layout.num_segments to at most {slots}")
        raise ResourceError("layout.num_replicas", f"{layout.num_replicas} x {layout.num_segments} segments need {needed} "
                            f"slots, {master} has {slots}", f"{f'set {fewer}, or ' if slots else ''}give Spark more slots "
                            "(spark.master: local[N], more executors or executor cores)")


def check_replicas(layout: Layout) -> None:
    """Raises ConfigError for a ring that the rendezvous has no room for."""
    if layout.num_replicas > MAX_RING_SIZE:
        raise ConfigError(SparkringError(
            "layout.num_replicas", f"{layout.num_replicas} replicas cannot find each other: with more than {MAX_RING_SIZE} what "
            "a rank says of itself outgrows the rendezvous", f"use at most {MAX_RING_SIZE}"))


def num_gpus() -> int:
    """The GPUs that torch can use here; asked in a process of its own, because the driver never imports torch."""
    ask = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, errors="replace", timeout=TORCH_TIMEOUT_S,
                                stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return 0
    return int(answer.stdout.split()[-1]) if answer.returncode == EXIT_OK else 0


def _check_gpus(layout: Layout, there: int) -> None:
    if there == 0:
        raise ResourceError("layout.device", "cuda: this machine has no GPU that torch can use", "set layout.device: cpu")
    if not layout.automatic and layout.num_ranks > there:
        raise ResourceError("layout.device", f"cuda: {layout.num_ranks} ranks on a machine with {there} GPUs",
                            f"set layout.num_replicas so that there are at most {there} ranks, or layout.device: cpu")
