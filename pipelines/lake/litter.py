"""What writers that were killed have left in a lake: never seen by a reader, and in the way of nobody.

Runs on: driver (``sparkring clean``).
Takes:   a lake.
Gives:   ``litter``: what there is, by what it was to become; ``remove_litter``.

A claim says whether somebody is at it still, and is held while what nobody is at is looked at again and removed. What nothing
claims (a report, a table's part) was written in seconds: an unfinished file of it counts once it is OLD_S old. One listing of the
whole lake finds all.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from pipelines.errors import AlreadyRunningError
from pipelines.lake.claims import claimed, is_claimed
from pipelines.lake.manifest import MANIFEST_NAME
from pipelines.lake.paths import Lake, is_run_id
from pipelines.lake.store import TEMPORARY_PREFIX
from pipelines.lake.stored_weights import INDEX_NAME

OLD_S = 24 * 3600.0
_VERSION = re.compile(rf"datasets/([^/]+)/(?:{re.escape(TEMPORARY_PREFIX)})?([0-9a-f]{{16}})(?:-[0-9a-f]{{12}})?/(.+)")
_OF_MAKING = re.compile(r"(attempt-\d{6}-[0-9a-f]{32}|pieces|copies)/.+")  # what a version is made by, beside its shards
_ATTEMPT = re.compile(r"runs/([^/]+)/(attempt-\d{3,})/.+")
_MODEL_PART = re.compile(r"models/([^/]+)/([^/]+)/model-.+\.safetensors")
Left = Callable[[Lake, Iterable[str]], list[str]]  # those of the keys that are litter now


def _all_of_them(lake: Lake, keys: Iterable[str]) -> list[str]:
    return [*keys]


@dataclass(frozen=True)
class Litter:
    """Objects that were to become one thing."""

    what: str
    keys: tuple[str, ...]
    claim: str | None  # of whoever makes it
    left: Left


def litter(lake: Lake, now_s: float | None = None) -> list[Litter]:
    """
    Args:
        now_s: Unix time; None: now.
    Raises:
        StorageError: the lake cannot be listed.
    """
    now_s = time.time() if now_s is None else now_s
    groups: defaultdict[tuple[str, str | None, Left], list[str]] = defaultdict(list)
    lefts: dict[str, Left] = {}
    for key in lake.store.keys(""):
        version, attempt, part = _VERSION.fullmatch(key), _ATTEMPT.fullmatch(key), _MODEL_PART.fullmatch(key)
        if version is not None:
            what = f"what a prepare of dataset {version[1]} {version[2]} left"
            left = lefts.setdefault(what, _left_of_version(lake.dataset(version[1], version[2])))
            groups[what, lake.version_claim(version[1], version[2]), left].append(key)
        elif _is_old_temporary(lake, key, now_s):
            groups["files that were never finished", None, _all_of_them].append(key)
        elif attempt is not None and is_run_id(attempt[1]):
            what = f"attempt {attempt[2]} of run {attempt[1]}, which was never begun"
            left = lefts.setdefault(what, _unless_there(f"{lake.run(attempt[1]).key}/{attempt[2]}/state.json"))
            groups[what, lake.run(attempt[1]).claim, left].append(key)
        elif part is not None and is_run_id(part[1]):
            what = f"weights that the {part[2]} model of run {part[1]} does not name"
            left = lefts.setdefault(what, _unnamed(lake.model(part[1], part[2])))
            groups[what, lake.run(part[1]).claim, left].append(key)
    found = [Litter(what, tuple(sorted(keys)), claim, left) for (what, claim, left), group in groups.items()
             if not (claim is not None and is_claimed(lake.store, claim)) and (keys := left(lake, group))]
    return sorted(found, key=lambda each: each.what)


def remove_litter(lake: Lake, each: Litter) -> None:
    """What of it is litter still; nothing of what somebody has begun to make meanwhile.

    Raises:
        StorageError: one cannot be removed.
    """
    if each.claim is None:
        _remove(lake, each.keys)
        return
    with (suppress(AlreadyRunningError),
          claimed(lake.store, each.claim, AlreadyRunningError(each.what, "is somebody's"), patience_s=0.0)):
        _remove(lake, each.left(lake, each.keys))


def _remove(lake: Lake, keys: Iterable[str]) -> None:
    for key in keys:
        lake.store.remove(key)


def _unless_there(last: str) -> Left:
    """Litter, where the object that is written last is not there."""
    return lambda lake, keys: [] if lake.store.facts(last) is not None else [*keys]


def _left_of_version(folder: str) -> Left:
    """What it was made by, and all of one that was never published. In a folder a version was whole once: prepare says what
    to do where its manifest is gone."""
    def left(lake: Lake, keys: Iterable[str]) -> list[str]:
        if lake.store.folders_appear_whole:
            return [key for key in keys if not key.startswith(f"{folder}/")]
        if lake.store.facts(f"{folder}/{MANIFEST_NAME}") is None:
            return [*keys]
        try:
            content = json.loads(lake.store.read(f"{folder}/{MANIFEST_NAME}"))
            shards = {shard["path"] for shards in content["splits"].values() for shard in shards}
        except (AttributeError, KeyError, TypeError, ValueError):  # damaged: whose they are cannot be told
            return []
        below = [(key, key.removeprefix(f"{folder}/")) for key in keys]
        return [key for key, name in below if name not in shards and _OF_MAKING.fullmatch(name)]

    return left


def _unnamed(model: str) -> Left:
    """Weights in several files that no index names."""
    def left(lake: Lake, keys: Iterable[str]) -> list[str]:
        files = lake.store.below(model)
        if files.facts(INDEX_NAME) is None:
            return [*keys]
        try:
            named = {f"{model}/{name}" for name in json.loads(files.read(INDEX_NAME))["weight_map"].values()}
        except (AttributeError, KeyError, TypeError, ValueError):
            return []
        return [key for key in keys if key not in named]

    return left


def _is_old_temporary(lake: Lake, key: str, now_s: float) -> bool:
    """By this machine's clock; where a store does not say when, it is not known to be old."""
    if not any(part.startswith((TEMPORARY_PREFIX, ".probe-")) for part in key.split("/")):
        return False
    facts = lake.store.facts(key)
    return facts is not None and facts.modified_s > 0 and now_s - facts.modified_s > OLD_S
