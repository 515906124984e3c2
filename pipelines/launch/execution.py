"""The ranks of one attempt, from their start to their end.

Runs on: driver.
Takes:   session, platform, a prepared attempt and its plan.
Gives:   ``run_gang``: records, models, or the first cause of a failure.
"""

from __future__ import annotations

import socket

from pyspark.sql import SparkSession

from pipelines.config import Platform
from pipelines.errors import ResourceError, StalledError
from pipelines.lake.claims import Claim
from pipelines.lake.paths import RunFolder
from pipelines.launch.gang import Gang
from pipelines.launch.hub_server import Hub
from pipelines.launch.news import News
from pipelines.launch.observer import Observer
from pipelines.launch.rank_process import GangOrder, worker_of
from pipelines.launch.rendezvous import Rendezvous
from pipelines.launch.watch import watch, with_frozen_ranks
from pipelines.plan.run_plan import RunPlan


def run_gang(spark: SparkSession, platform: Platform, run: RunFolder, attempt: int, plan: RunPlan, news: News,
             observer: Observer, claim: Claim) -> None:
    """Returns when all ranks ended well.

    Raises:
        SparkringError: why they did not, see ``watch.py``; no rank is left behind.
    """
    layout, launch = plan.layout, platform.launch
    address = driver_address(spark)
    port = launch.rendezvous_port
    with (Rendezvous(address, layout.num_replicas, layout.num_segments, port) as rendezvous,
          Hub(address, run.live(attempt), layout.num_ranks, layout.num_segments,
              port + layout.num_segments if port else 0) as hub):
        gang = Gang(spark, GangOrder(
            root=run.lake.address, run_id=run.run_id, attempt=attempt, num_segments=layout.num_segments,
            threads_per_rank=layout.threads_per_rank, driver_address=address, rendezvous_ports=rendezvous.ports,
            rendezvous_key=rendezvous.key, hub=hub.address, device=layout.device,
            network_interface=launch.network_interface, meet_timeout_s=launch.start_timeout_s,
            cycle_time_ms=plan.cycle_time_ms, module=worker_of(run), evaluation=run.evaluation), layout.num_ranks, hub)
        gang.start()
        try:
            watch(gang, rendezvous, hub, news, launch, plan, observer, claim)
        except StalledError as error:
            gang.stop(launch.stop_timeout_s)  # their Spark tasks tell in which state they found the ranks
            raise with_frozen_ranks(error, hub) from error
        finally:
            if not gang.stop(launch.stop_timeout_s):
                observer.say(f"the ranks were not seen to end within {launch.stop_timeout_s:g} s (launch.stop_timeout_s)")
            for rank, number in hub.dropped().items():
                observer.say(f"{number:,} records of rank {rank} did not reach the driver: its connection was slow or broken")


def driver_address(spark: SparkSession) -> str:
    """The driver's numeric address, as executors reach it.

    Raises:
        ResourceError: its name has none.
    """
    name = str(spark.sparkContext.getConf().get("spark.driver.host", "127.0.0.1"))
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        raise ResourceError("spark.driver_host", f"{name} has no address here ({error.strerror or error})",
                            "set it to the driver's numeric address, or add the name to /etc/hosts") from error
