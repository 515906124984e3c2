"""The shards that the tasks wrote, as the dataset names them.

Runs on: driver.
Takes:   the outcome of each partition, and the staging that the tasks wrote to.
Gives:   ``named_shards``; ``rejected_parts``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from pipelines.lake.manifest import Shard, row_group_runs
from pipelines.lake.staging import Staging
from pipelines.prepare.outcomes import Outcomes
from pipelines.prepare.rejected_rows import REJECTED_NAME
from pipelines.prepare.threads import in_threads

Facts = TypeVar("Facts")


def named_shards(outcomes: Outcomes, split: str, staging: Staging,
                 look: Callable[[str], Facts]) -> tuple[tuple[Shard, ...], Iterator[Facts]]:
    """A split's shards in the order of the outcomes. They move to their places while what ``look`` found is read, a few ahead.

    Args:
        look: called with the key of each, before it is moved and without its ending; what it gives comes back in the same order.
    """
    made = [(f"{outcome['attempt']}/{split}", facts) for outcome in outcomes if (facts := outcome["shards"][split]) is not None]
    wanted = [(f"{written}.parquet", f"{split}-{number:05d}.parquet") for number, (written, _) in enumerate(made)]
    shards = tuple(Shard(staging.kept_key(*keys), row_group_runs(facts["row_groups"]), facts["bytes"], facts["sha256"])
                   for keys, (_, facts) in zip(wanted, made, strict=True))

    def settle(number: int) -> Facts:
        found = look(made[number][0])
        staging.settle(*wanted[number])
        return found

    return shards, in_threads(settle, range(len(made)))


def rejected_parts(outcomes: Outcomes) -> list[str]:
    """The keys of what the tasks refused."""
    return [f"{outcome['attempt']}/{REJECTED_NAME}" for outcome in outcomes if outcome["has_rejected"]]
