"""One rank as a child process of its Spark task: started, watched, ended.

Runs on: executors, inside a task of the barrier stage.
Takes:   a ``GangOrder`` (the same for all tasks) and the task's barrier context.
Gives:   the rank, watched over until its end; how that was, told to the hub with the end of its output.

A fresh process: the task's Python worker has threads, signal handlers and imports of its own, and torch must see its
thread count and the ring its address before either is imported.

The rank's output goes to a temporary file of its host, which is removed once the driver has it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from pipelines.errors import ResourceError
from pipelines.hub.hub_address import HubAddress
from pipelines.hub.task_line import TOLD_S, TaskLine
from pipelines.lake.paths import Lake, RunFolder
from pipelines.launch.exits import LOG_BYTES, exit_facts
from pipelines.launch.gpus import assigned_gpu, check_gpus
from pipelines.launch.interfaces import check_interface, interface_of
from pipelines.launch.rendezvous import announce
from pipelines.plan.places import Seat, place_ranks
from pipelines.train import rank_variables

WORKER, EVALUATION_WORKER = "pipelines.train.worker", "pipelines.train.evaluation_worker"
POLL_S = 0.05
TERMINATE_GRACE_S = 2.0
# glibc gives large blocks back to the system and faults them in again in every step: 5 % of a step in fp32, 8 % in bf16
# (GPT of 6 M parameters on one core). A rank's peak is its steady state, so it keeps what it has.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(64 * 1024**2)}


@dataclass(frozen=True)
class GangOrder:
    """What every task of one launch is told."""

    root: str  # of the lake
    run_id: str
    attempt: int
    num_segments: int
    threads_per_rank: int
    driver_address: str
    rendezvous_ports: tuple[int, ...]  # of each segment's ring
    rendezvous_key: bytes = field(repr=False)
    hub: HubAddress | None  # None: its ranks are on their own, each with its records in a file
    network_interface: str | None
    meet_timeout_s: float
    cycle_time_ms: float
    device: str = "cpu"
    module: str = WORKER  # what a rank runs, see ``start_rank``
    evaluation: str | None = None  # of the run's model; None: the run itself

    @property
    def run(self) -> RunFolder:
        run = Lake.at(self.root).run(self.run_id)
        return run if self.evaluation is None else run.evaluated(self.evaluation)


def run_rank(order: GangOrder, context: Any) -> None:
    """The body of a barrier task: one rank from start to end.

    Args:
        context: ``pyspark.BarrierTaskContext``.
    Raises:
        RuntimeError: the rank did not end well; Spark then ends the other tasks and with them their ranks.
    """
    run = order.run
    if context.attemptNumber() > 0:
        raise RuntimeError("a gang is never retried by Spark; its driver relaunches it")
    try:
        address = announce(order.driver_address, order.rendezvous_ports[0], order.rendezvous_key, order.meet_timeout_s)
        check_interface(order.network_interface)
        interface = order.network_interface or interface_of(address)
        gpu = assigned_gpu(context.resources()) if order.device == "cuda" else None
        hosts, gpus = zip(*(json.loads(text) for text in context.allGather(json.dumps([address, gpu]))), strict=True)
        seats = place_ranks(list(hosts), order.num_segments)
        check_gpus(seats, gpus)
    except ResourceError as error:
        raise RuntimeError(f"host {socket.gethostname()}: {error}") from error
    seat = seats[context.partitionId()]
    if run.store.facts(run.config(order.attempt)) is None:
        raise RuntimeError(f"storage.root: {run.store.place(run.config(order.attempt))} is not there on {socket.gethostname()}; "
                           "driver and executors must see the same lake")
    _check_own_name(seat, address)
    _watch_over(order, seat, rank_environment(order, seat, interface, gpu))


def _watch_over(order: GangOrder, seat: Seat, environment: dict[str, str]) -> None:
    """The rank from its start to its end, which the driver is told."""
    host = socket.gethostname()
    number, log = tempfile.mkstemp(prefix=f"sparkring-{order.run_id}-attempt-{order.attempt:03d}-rank-{seat.rank:05d}-",
                                   suffix=".log")
    with open(number, "wb") as output, TaskLine(_hub_of(order), seat.rank) as line:
        line.tell({"host": host, "log": log})
        process = start_rank(order.run, order.attempt, environment, output, order.module)
        try:
            code, state = _wait(process, line)
        finally:
            end_rank(process)
        told = line.tell(exit_facts(host, code, state), end_of_log(log), TOLD_S)
    if told:
        Path(log).unlink()
    if line.alone.is_set():
        raise RuntimeError(f"rank {seat.rank} on {host}: nothing was heard of the driver any more; its output: {log}")
    if code != 0 and not state:  # where it was asked to end, its task has done what it should, and the others' still may
        raise RuntimeError(f"rank {seat.rank} on {host} ended with {code}" + ("" if told else f"; its output: {log}"))


def _hub_of(order: GangOrder) -> HubAddress:
    if order.hub is None:
        raise RuntimeError("a gang needs a hub")
    return order.hub


def end_of_log(path: str) -> bytes:
    """What travels of it."""
    with open(path, "rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_BYTES))
        return log.read(LOG_BYTES)


def rank_arguments(run: RunFolder, attempt: int) -> list[str]:
    """What a rank's program is told: ROOT RUN_ID ATTEMPT, and the name of an evaluation."""
    return [run.lake.address, run.run_id, str(attempt), *([] if run.evaluation is None else [run.evaluation])]


def worker_of(run: RunFolder) -> str:
    """The module that a rank of a run, or of an evaluation, is."""
    return WORKER if run.evaluation is None else EVALUATION_WORKER


def start_rank(run: RunFolder, attempt: int, environment: dict[str, str], output: BinaryIO, module: str = WORKER
               ) -> subprocess.Popen[bytes]:
    """``python -m MODULE ROOT RUN_ID ATTEMPT`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *rank_arguments(run, attempt)],
        stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
        # Ctrl-C in a terminal is the driver's to handle. A group, not a session: Linux gives each session the same share
        # of the CPUs (sched_autogroup), which costs 20 % where more ranks than cores hand work to each other
        process_group=0)


def rank_environment(order: GangOrder, seat: Seat, interface: str, gpu: str | None = None) -> dict[str, str]:
    """The rank's environment: this task's without what belongs to Spark, where the ring meets, the GPU that Spark gave."""
    private = ("PYTHON_WORKER_FACTORY", "SPARK_", "_PYSPARK", "PYSPARK_", "HOROVOD_", "JAVA_TOOL")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    # Spark's addresses are nvidia-smi's numbers, which count by bus
    its_gpu = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {
        **inherited, **its_gpu, **({} if order.hub is None else order.hub.variables(seat.rank)),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),  # --py-files reach the rank too
        "PYTHONUNBUFFERED": "1",
        rank_variables.PARENT: str(os.getpid()),
        "OMP_NUM_THREADS": str(order.threads_per_rank),
        "MKL_NUM_THREADS": str(order.threads_per_rank),
        rank_variables.SEGMENT_INDEX: str(seat.segment_index),
        rank_variables.GPU_INDEX: str(seat.local_rank if gpu is None else 0),
        "HOROVOD_RANK": str(seat.ring.rank), "HOROVOD_SIZE": str(seat.ring.size),
        "HOROVOD_LOCAL_RANK": str(seat.ring.local_rank), "HOROVOD_LOCAL_SIZE": str(seat.ring.local_size),
        "HOROVOD_CROSS_RANK": str(seat.ring.cross_rank), "HOROVOD_CROSS_SIZE": str(seat.ring.cross_size),
        "HOROVOD_HOSTNAME": seat.host, "HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo",
        # torch's gloo would else listen where the host's own name leads: often loopback, which no other host reaches
        "GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface,
        "HOROVOD_GLOO_IFACE": interface, "HOROVOD_GLOO_RENDEZVOUS_ADDR": order.driver_address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(order.rendezvous_ports[seat.segment_index]),
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(max(1, round(order.meet_timeout_s))),
        "HOROVOD_CYCLE_TIME": str(order.cycle_time_ms),
        **ALLOCATOR,
        # gradients come in buckets of the right size already; joining them would only copy them
        "HOROVOD_FUSION_THRESHOLD": "0",
    }


def _wait(process: subprocess.Popen[bytes], line: TaskLine) -> tuple[int, str]:
    """The exit code; the driver's word or its silence ends the rank, whose state at that moment comes second.

    Not bounded here: the driver watches progress.
    """
    while True:
        try:
            return process.wait(timeout=POLL_S), ""
        except subprocess.TimeoutExpired:
            if line.stopped.is_set() or line.alone.is_set():
                state = psutil.Process(process.pid).status()
                end_rank(process)
                code = process.poll()  # none yet: it waits for a disk, and ends once that answers
                return -signal.SIGKILL if code is None else code, state


def end_rank(process: subprocess.Popen[bytes]) -> None:
    """Ends the rank and everything it started."""
    for request, grace_s in ((signal.SIGTERM, TERMINATE_GRACE_S), (signal.SIGKILL, TERMINATE_GRACE_S)):
        if process.poll() is not None:
            break
        try:
            os.killpg(process.pid, request)
            process.wait(timeout=grace_s)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    try:
        os.killpg(process.pid, signal.SIGKILL)  # what a rank that is gone left behind
    except ProcessLookupError:
        return


def _check_own_name(seat: Seat, address: str) -> None:
    """Horovod 0.28.1 looks its host's name up and listens where that leads, whatever the interface: it dies of a
    segmentation fault where there is no address, and no other host finds it on loopback.

    Source: InitializeForProcessSet in horovod/common/gloo/gloo_context.cc, which leaves the interface out.
    """
    name = socket.gethostname()
    try:
        found = socket.gethostbyname(name)
    except OSError as error:
        raise RuntimeError(f"host {name}: its name has no address ({error}); add '{address} {name}' to its /etc/hosts") from error
    if found.startswith("127.") and seat.ring.size > seat.ring.local_size:
        raise RuntimeError(f"host {name}: its name leads to {found}, where ranks on other hosts do not reach it; write "
                           f"'{address} {name}' in its /etc/hosts instead")
