"""Launch: a warm Spark session to the first allreduce done on 2 ranks, and back.

Runs on: driver.
Takes:   nothing.
Gives:   ``measure``: ours against the faster of ``horovod.spark.run`` and ``TorchDistributor``, alternated.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from pyspark.sql import SparkSession

from benchmarks.results import Figure
from pipelines.config import Platform
from pipelines.lake.paths import Lake
from pipelines.launch.gang import Gang
from pipelines.launch.hub_server import Hub
from pipelines.launch.rank_process import GangOrder
from pipelines.launch.rendezvous import Rendezvous
from pipelines.spark.session import spark_session

ROUNDS, LOOPBACK = 5, "127.0.0.1"
FIRST_ALLREDUCE = '''"""Stands in the worker's place: one allreduce, then home."""
import sys
import torch
from pipelines.parallel.ring import Ring
ring = Ring.join(1)
assert ring.sum(torch.ones(1000), "first").sum().item() == 1000 * ring.place.num_ranks
ring.leave()
'''


def ours_s(spark: SparkSession, folder: Path, name: str) -> float:
    """Through our rendezvous, barrier stage and rank processes; the rank's module is the allreduce above."""
    run = Lake.at(folder).run(name)
    run.live(0).make()
    run.store.put(run.config(0), "{}")  # the tasks look whether they see the lake
    began = time.perf_counter()
    with Rendezvous(LOOPBACK, 2) as rendezvous, Hub(LOOPBACK, run.live(0), 2) as hub:
        gang = Gang(spark, GangOrder(root=str(run.lake.root), run_id=run.run_id, attempt=0, num_segments=1, threads_per_rank=1,
                                     driver_address=LOOPBACK, rendezvous_ports=rendezvous.ports,
                                     rendezvous_key=rendezvous.key, hub=hub.address, network_interface=None,
                                     meet_timeout_s=60, cycle_time_ms=1.0, module="first_allreduce"), 2, hub)
        gang.start()
        if not gang.wait(120) or gang.failure:
            raise RuntimeError(gang.failure or "no end")
    return time.perf_counter() - began


def horovod_spark_s(spark: SparkSession) -> float:
    import horovod.spark

    def one_allreduce() -> float:
        import horovod.torch as hvd
        import torch
        hvd.init()
        total = hvd.allreduce(torch.ones(1000), op=hvd.Sum).sum().item()
        hvd.shutdown()
        return total

    began = time.perf_counter()
    with open(os.devnull, "w") as nowhere:
        horovod.spark.run(one_allreduce, num_proc=2, use_gloo=True, verbose=0, stdout=nowhere, stderr=nowhere, nics={"lo"})
    return time.perf_counter() - began


def torch_distributor_s(spark: SparkSession) -> float:
    from pyspark.ml.torch.distributor import TorchDistributor

    def one_allreduce() -> float:
        import torch
        import torch.distributed as dist
        dist.init_process_group("gloo")
        values = torch.ones(1000)
        dist.all_reduce(values)
        dist.destroy_process_group()
        return values.sum().item()

    began = time.perf_counter()
    TorchDistributor(num_processes=2, local_mode=False, use_gpu=False).run(one_allreduce)
    return time.perf_counter() - began


def measure() -> list[Figure]:
    platform = Platform.model_validate({"spark": {"master": "local[2]"}})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "first_allreduce.py").write_text(FIRST_ALLREDUCE)
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        with spark_session(platform, "bench-launch") as spark:
            spark.sparkContext.parallelize(range(4), 2).map(lambda x: x).count()  # warm
            seen: dict[str, list[float]] = {"ours": [], "horovod.spark.run": [], "TorchDistributor": []}
            for i in range(ROUNDS):
                seen["ours"].append(ours_s(spark, Path(folder), f"run-{i}"))
                seen["horovod.spark.run"].append(horovod_spark_s(spark))
                seen["TorchDistributor"].append(torch_distributor_s(spark))
                print(f"round {i + 1} of {ROUNDS}: " + ", ".join(f"{k} {v[-1]:.2f} s" for k, v in seen.items()))
    middle = {name: statistics.median(values) for name, values in seen.items()}
    peers = {name: value for name, value in middle.items() if name != "ours"}
    faster = min(peers, key=lambda name: peers[name])
    return [Figure(f"launch to first allreduce vs {name}", middle["ours"], value, "s", 0.5, "python -m benchmarks launch",
                   higher_is_better=False, note=f"medians of {ROUNDS} alternated rounds"
                   + ("; the faster peer" if name == faster else "")) for name, value in peers.items()]
