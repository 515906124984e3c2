"""The shards that the tasks wrote, as the dataset names them.

Runs on: driver.
Takes:   the outcome of each partition, and the staging folder that the tasks wrote to.
Gives:   ``named_shards``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pipelines.lake.manifest import Shard, row_group_runs
from pipelines.prepare.outcomes import Outcomes
from pipelines.prepare.threads import in_threads

Facts = TypeVar("Facts")


def named_shards(outcomes: Outcomes, split: str, staging: Path,
                 look: Callable[[Path], Facts]) -> tuple[tuple[Shard, ...], Iterator[Facts]]:
    """A split's shards in the order of the outcomes. They move to their places while what ``look`` found is read, a few ahead.

    Args:
        look: called for each before it is moved; what it gives comes back in the same order.
    """
    made = [(outcome["attempt"], facts) for outcome in outcomes if (facts := outcome["shards"][split]) is not None]
    shards = tuple(Shard(f"{split}-{number:05d}.parquet", row_group_runs(facts["row_groups"]), facts["bytes"], facts["sha256"])
                   for number, (_, facts) in enumerate(made))

    def move(attempt_and_shard: tuple[str, Shard]) -> Facts:
        attempt, shard = attempt_and_shard
        written = staging / attempt / f"{split}.parquet"
        found = look(written)
        written.rename(staging / shard.path)
        return found

    return shards, in_threads(move, [(attempt, shard) for (attempt, _), shard in zip(made, shards, strict=True)])
