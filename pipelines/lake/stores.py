"""A store by its address: a path, a URL, or a URL with its options.

Runs on: driver, executors and ranks.
Takes:   the address, as one text (``Storage.address`` in the platform makes one).
Gives:   ``store_at``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.lake.object_cache import CACHE_BYTES, ObjectCache
from pipelines.lake.object_store import ObjectStore
from pipelines.lake.remote_folder import local_path
from pipelines.lake.store import FolderStore, Store

__all__ = ["Store", "store_at"]


def store_at(address: str | Path) -> Store:
    """A path is made absolute, so that executors and ranks see the same. Nothing is looked at yet."""
    settings: dict[str, Any] = {"root": str(address)}
    if isinstance(address, str) and address.startswith("{"):
        settings = json.loads(address)
    root = local_path(settings["root"])
    if "://" not in root:
        return FolderStore(Path(root).expanduser().absolute())
    return ObjectStore(root.rstrip("/"), json.dumps(settings.get("options", {}), sort_keys=True),
                       ObjectCache(settings.get("cache_bytes", CACHE_BYTES), settings.get("cache_folder")),
                       settings.get("single_writer", False))
