"""What every rank does around its work: it joins its peers, records its start and its end, and leaves.

Runs on: ranks.
Takes:   the folder of a run or of an evaluation, ``config.json`` and ``plan.json`` of the attempt; the work; the driver's hub.
Gives:   ``live_as_rank``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import torch

from pipelines.config.load import Config
from pipelines.errors import SparkringError
from pipelines.hub.record_stream import RecordStream
from pipelines.lake.paths import RunFolder
from pipelines.lake.rank_records import RecordWriter
from pipelines.parallel.peers import Peers
from pipelines.parallel.ring import PeerLostError
from pipelines.plan.run_plan import RunPlan
from pipelines.train import rank_variables
from pipelines.train.device import training_device
from pipelines.train.own_hub import HubOfRank, meeting_store, opened_stream, record_writer
from pipelines.train.widened_products import has_bfloat16_products, widen_products

ResultT = TypeVar("ResultT")
Work = Callable[[Config, RunPlan, Peers, torch.device, RecordWriter], tuple[int, ResultT]]  # its last step, and what it likes


def live_as_rank(run: RunFolder, attempt: int, work: Work[ResultT], hub: HubOfRank | None) -> tuple[int, int, ResultT]:
    """One rank's part, from joining the ring to its end record.

    Args:
        hub: None for a rank on its own, whose records go into the attempt's folder.
    Returns:
        The rank, and what the work gave.
    Raises:
        SparkringError: also written as the end record's error.
    """
    with ExitStack() as stack:
        stream = opened_stream(hub)
        if stream is not None:
            stack.callback(stream.close)
        return _lived(run, attempt, work, hub, stream)


def _lived(run: RunFolder, attempt: int, work: Work[ResultT], hub: HubOfRank | None, stream: RecordStream | None
           ) -> tuple[int, int, ResultT]:
    config = Config.from_json(run.store.read(run.config(attempt)).decode())
    plan = RunPlan.load(run, attempt)
    layout = config.platform.layout
    torch.set_num_threads(layout.threads_per_rank)
    device = training_device(layout)
    if device.type == "cpu" and config.recipe.train.precision == "bf16" and not has_bfloat16_products():
        widen_products()
    peers = Peers.join(layout.num_segments, int(os.environ.get(rank_variables.SEGMENT_INDEX, "0")), lambda: meeting_store(hub),
                       device, config.platform.launch)
    place = peers.place
    with record_writer(stream, run.live(attempt).record(place.rank), place.rank, attempt) as records:
        records.write("start", replica_index=place.replica_index, segment_index=place.segment_index,
                      num_ranks=place.num_ranks, host=socket.gethostname(), pid=os.getpid(), start_step=0,
                      device=layout.device, threads=layout.threads_per_rank, versions={"torch": torch.__version__})
        try:
            last_step, result = work(config, plan, peers, device, records)
            records.write("end", step=last_step, status="completed", error=None)
        except SparkringError as error:
            records.write("end", step=None, status="failed", error={
                "exit_code": error.exit_code, "place": error.place, "problem": error.problem, "remedy": error.remedy,
                "peer_lost": isinstance(error, PeerLostError)})
            raise
        records.flush()
        peers.leave()  # behind the end: what is complete must be known as that, whatever happens while ranks leave
    return place.rank, last_step, result
