"""One rank: the process, from joining its peers to its exit code.

Runs on: ranks, as ``python -m pipelines.train.worker ROOT RUN_ID ATTEMPT`` (the launcher's child, or by hand: without
         ``HOROVOD_*`` in the environment it trains alone).
Takes:   ``config.json`` and ``plan.json`` of the attempt, the dataset they name.
Gives:   this rank's records; on rank 0 the models, and after the end what the best one shows (``exhibition.py``);
         an exit code of ``errors.py``.
"""

from __future__ import annotations

import sys

from pipelines.train.lifeline import die_with_parent

die_with_parent()  # before the slow imports: a launch that is stopped early must leave nothing behind

from pipelines.errors import EXIT_OK, SparkringError  # noqa: E402
from pipelines.lake.paths import Lake  # noqa: E402
from pipelines.train.exhibition import become_exhibition  # noqa: E402
from pipelines.train.own_hub import HubOfRank  # noqa: E402
from pipelines.train.rank_life import live_as_rank  # noqa: E402
from pipelines.train.training import train_rank  # noqa: E402


def main(arguments: list[str]) -> int:
    """Exit code of this rank; the error itself is in its records and, for people, in its log."""
    run, attempt, hub = Lake.at(arguments[0]).run(arguments[1]), int(arguments[2]), HubOfRank.taken()
    try:
        rank, last_step, request = live_as_rank(run, attempt, train_rank, hub)
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    if rank == 0 and request is not None:
        become_exhibition(run, attempt, last_step, request, hub)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
