"""One rank of an evaluation: the process, from joining its peers to its exit code.

Runs on: ranks, as ``python -m pipelines.train.evaluation_worker ROOT RUN_ID ATTEMPT EVALUATION`` (the launcher's child).
Takes:   ``order.json`` of the evaluation, ``config.json`` and ``plan.json`` of the attempt; the exported model; the dataset.
Gives:   this rank's records; on rank 0 ``findings.json`` of the attempt; an exit code of ``errors.py``.
"""

from __future__ import annotations

import sys

from pipelines.train.lifeline import die_with_parent

die_with_parent()  # before the slow imports, as a rank that trains

from pipelines.errors import EXIT_OK, SparkringError  # noqa: E402
from pipelines.lake.paths import Lake  # noqa: E402
from pipelines.train.appraisal import evaluate_rank  # noqa: E402
from pipelines.train.own_hub import HubOfRank  # noqa: E402
from pipelines.train.rank_life import live_as_rank  # noqa: E402


def main(arguments: list[str]) -> int:
    """Exit code of this rank; the error itself is in its records and, for people, in its log."""
    run, attempt = Lake.at(arguments[0]).run(arguments[1]).evaluated(arguments[3]), int(arguments[2])
    try:
        live_as_rank(run, attempt, lambda *parts: evaluate_rank(run, attempt, *parts), HubOfRank.taken())
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
