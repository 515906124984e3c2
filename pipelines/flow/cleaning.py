"""The command clean: what killed jobs left in a lake, shown or removed.

Runs on: driver (no Spark).
Takes:   where the lake is.
Gives:   ``clean_lake``: what there was, in lines for people.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.config.platform import Storage
from pipelines.lake.litter import litter, remove_litter
from pipelines.lake.paths import Lake


def clean_lake(storage: Storage, say: Callable[[str], None], *, dry_run: bool) -> None:
    """
    Raises:
        StorageError: the lake cannot be listed, or something cannot be removed.
    """
    lake = Lake.at(storage.address)
    found = litter(lake)
    for each in found:
        say(f"clean: {each.what}: {len(each.keys):,} files ({'would be ' if dry_run else ''}removed)")
        if not dry_run:
            remove_litter(lake, each)
    if not found:
        say(f"clean: nothing is left over in {lake.store.place()}")
