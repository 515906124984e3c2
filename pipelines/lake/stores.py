"""A store by its address: a path, a URL, or a URL with its options.

Runs on: driver, executors and ranks.
Takes:   the address, as one text (``Storage.address`` in the platform makes one).
Gives:   ``store_at``; ``kept_here``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.config.platform import CACHE_BYTES
from pipelines.lake.object_cache import ObjectCache
from pipelines.lake.object_store import ObjectStore
from pipelines.lake.remote_folder import local_path
from pipelines.lake.store import FolderStore, Store

__all__ = ["Store", "kept_here", "store_at"]


def store_at(address: str | Path) -> Store:
    """A path is made absolute, so that executors and ranks see the same. Nothing is looked at yet."""
    settings = _settings(address)
    root = local_path(settings["root"])
    if "://" not in root:
        return FolderStore(Path(root).expanduser().absolute())
    return ObjectStore(root.rstrip("/"), json.dumps(settings.get("options", {}), sort_keys=True),
                       _cache(settings),
                       settings.get("single_writer", False))


def kept_here(address: str | Path) -> Path:
    """The folder of this machine in which lies what it keeps of a lake elsewhere."""
    return _cache(_settings(address)).place


def _settings(address: str | Path) -> dict[str, Any]:
    if isinstance(address, str) and address.startswith("{"):
        return dict(json.loads(address))
    return {"root": str(address)}


def _cache(settings: dict[str, Any]) -> ObjectCache:
    return ObjectCache(settings.get("cache_bytes", CACHE_BYTES), settings.get("cache_folder"))
