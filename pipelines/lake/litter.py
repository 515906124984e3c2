"""What writers that were killed have left in a lake: never seen by a reader, and in the way of nobody.

Runs on: driver (``sparkring clean``).
Takes:   a lake.
Gives:   ``litter``: what there is, by what it was to become; ``remove_litter``.

A claim says whether somebody is at it still. What nothing claims (a report, a table's part) was written in seconds: a temporary
file of it counts once it is OLD_S old by the lake's own clock. One listing of the whole lake finds all.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.lake.claims import is_claimed
from pipelines.lake.manifest import MANIFEST_NAME, TOKENIZER_NAME, Manifest
from pipelines.lake.paths import Lake, is_run_id
from pipelines.lake.store import TEMPORARY_PREFIX
from pipelines.lake.stored_weights import INDEX_NAME

OLD_S = 24 * 3600.0
_VERSION = re.compile(rf"datasets/([^/]+)/(?:{re.escape(TEMPORARY_PREFIX)})?([0-9a-f]{{16}})(?:-[0-9a-f]{{12}})?/(.+)")
_ATTEMPT = re.compile(r"runs/([^/]+)/(attempt-\d{3,})/(.+)")
_MODEL_PART = re.compile(r"models/([^/]+)/([^/]+)/(model-.+\.safetensors)")


@dataclass(frozen=True)
class Litter:
    """Objects that were to become one thing."""

    what: str
    keys: tuple[str, ...]


def litter(lake: Lake, now_s: float | None = None) -> list[Litter]:
    """
    Args:
        now_s: Unix time; None: now.
    Raises:
        StorageError: the lake cannot be listed.
    """
    now_s = time.time() if now_s is None else now_s
    found: defaultdict[str, list[str]] = defaultdict(list)
    versions: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for key in lake.store.keys(""):
        version, attempt, part = _VERSION.fullmatch(key), _ATTEMPT.fullmatch(key), _MODEL_PART.fullmatch(key)
        if version is not None:
            versions[version[1], version[2]].append(key)
        elif _is_old_temporary(lake, key, now_s):
            found["files that were never finished"].append(key)
        elif attempt is not None and is_run_id(attempt[1]) and _was_never_begun(lake, attempt[1], attempt[2]):
            found[f"attempt {attempt[2]} of run {attempt[1]}, which was never begun"].append(key)
        elif part is not None and is_run_id(part[1]) and _is_no_part(lake, part[1], part[2], part[3]):
            found[f"weights that the {part[2]} model of run {part[1]} does not name"].append(key)
    for (name, version_id), keys in versions.items():
        if left := [*_left_of_version(lake, name, version_id, keys)]:
            found[f"what a prepare of dataset {name} {version_id} left"] += left
    return [Litter(what, tuple(sorted(keys))) for what, keys in sorted(found.items())]


def remove_litter(lake: Lake, each: Litter) -> None:
    """Raises StorageError where one cannot be removed."""
    for key in each.keys:
        lake.store.remove(key)


def _left_of_version(lake: Lake, name: str, version: str, keys: list[str]) -> Iterator[str]:
    if is_claimed(lake.store, lake.version_claim(name, version)):
        return
    folder, kept = lake.dataset(name, version), set[str]()
    if f"{folder}/{MANIFEST_NAME}" in keys:
        manifest = Manifest.load(lake.store.below(folder))
        kept = {f"{folder}/{key}" for key in (MANIFEST_NAME, TOKENIZER_NAME, *(
            shard.path for shards in manifest.splits.values() for shard in shards))}
    elif lake.store.folders_appear_whole:  # it was whole once: prepare says what to do
        kept = {key for key in keys if key.startswith(f"{folder}/")}
    yield from (key for key in keys if key not in kept)


def _is_old_temporary(lake: Lake, key: str, now_s: float) -> bool:
    if not any(part.startswith((TEMPORARY_PREFIX, ".probe-")) for part in key.split("/")):
        return False
    facts = lake.store.facts(key)
    return facts is not None and now_s - facts.modified_s > OLD_S


def _was_never_begun(lake: Lake, run_id: str, attempt: str) -> bool:
    run = lake.run(run_id)
    return lake.store.facts(f"{run.key}/{attempt}/state.json") is None and not is_claimed(lake.store, run.claim)


def _is_no_part(lake: Lake, run_id: str, which: str, name: str) -> bool:
    model = lake.store.below(lake.model(run_id, which))
    if is_claimed(lake.store, lake.run(run_id).claim):
        return False
    return model.facts(INDEX_NAME) is None or name not in json.loads(model.read(INDEX_NAME))["weight_map"].values()
