"""One rank: the process, from joining its peers to its exit code.

Runs on: ranks, as ``python -m pipelines.train.worker ROOT RUN_ID ATTEMPT`` (the launcher's child, or by hand: without
         ``HOROVOD_*`` in the environment it trains alone).
Takes:   ``config.json`` and ``plan.json`` of the attempt, the dataset they name.
Gives:   this rank's record file; on rank 0 the models, and after the end what the best one shows (``exhibition.py``);
         an exit code of ``errors.py``.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from pipelines.train import rank_variables
from pipelines.train.lifeline import die_with_parent

die_with_parent()  # before the slow imports: a launch that is stopped early must leave nothing behind

import torch  # noqa: E402

from pipelines.config.load import Config  # noqa: E402
from pipelines.errors import EXIT_OK, SparkringError  # noqa: E402
from pipelines.lake.paths import Lake, RunFolder  # noqa: E402
from pipelines.lake.rank_records import RecordWriter  # noqa: E402
from pipelines.parallel.peers import Peers  # noqa: E402
from pipelines.parallel.ring import PeerLostError  # noqa: E402
from pipelines.plan.run_plan import RunPlan  # noqa: E402
from pipelines.train.device import training_device  # noqa: E402
from pipelines.train.exhibition import become_exhibition  # noqa: E402
from pipelines.train.training import train_rank  # noqa: E402


def run_worker(run: RunFolder, attempt: int) -> tuple[int, dict[str, Any]] | None:
    """Trains this rank's part of a run, from joining the ring to its end record.

    Returns:
        On rank 0, where the trained model is to show something: the last step, and what is asked for.
    Raises:
        SparkringError: also written as the end record's error.
    """
    config = Config.from_json(run.store.read(run.config(attempt)).decode())
    plan = RunPlan.load(run, attempt)
    layout = config.platform.layout
    torch.set_num_threads(layout.threads_per_rank)
    device = training_device(layout)
    peers = Peers.join(layout.num_segments, int(os.environ.get(rank_variables.SEGMENT_INDEX, "0")), run.live(attempt).meeting,
                       device, config.platform.launch)
    place = peers.place
    with RecordWriter(run.live(attempt).record(place.rank), place.rank, attempt) as records:
        records.write("start", replica_index=place.replica_index, segment_index=place.segment_index,
                      num_ranks=place.num_ranks, host=socket.gethostname(), pid=os.getpid(), start_step=0,
                      device=layout.device, threads=layout.threads_per_rank, versions={"torch": torch.__version__})
        try:
            last_step, request = train_rank(config, plan, peers, device, records)
            records.write("end", step=last_step, status="completed", error=None)
        except SparkringError as error:
            records.write("end", step=None, status="failed", error={
                "exit_code": error.exit_code, "place": error.place, "problem": error.problem, "remedy": error.remedy,
                "peer_lost": isinstance(error, PeerLostError)})
            raise
        peers.leave()  # behind the end: what is complete must be known as that, whatever happens while ranks leave
    return (last_step, request) if place.rank == 0 and request is not None else None


def main(arguments: list[str]) -> int:
    """Exit code of this rank; the error itself is in its records and, for people, in its log."""
    run, attempt = Lake.at(arguments[0]).run(arguments[1]), int(arguments[2])
    try:
        asked = run_worker(run, attempt)
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    if asked is not None:
        become_exhibition(run, attempt, *asked)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
