"""What each layer of a model was measured to cost, kept in the lake: the first run measures, later ones are planned by it.

Runs on: driver (finds), rank 0 (keeps).
Takes:   what a cost depends on: model, sizes, user's code, micro-batch, precision, device, threads.
Gives:   the key of a profile; the seconds in it, layer by layer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from pipelines.config.platform import Layout
from pipelines.config.recipe import Recipe
from pipelines.lake.paths import Lake
from pipelines.plan.model_facts import ModelFacts


def profile_key(lake: Lake, recipe: Recipe, layout: Layout, sizes: Mapping[str, int], facts: ModelFacts) -> str:
    """The same for all runs in which a layer costs the same. Hosts are taken for equal: ranks wait for the slowest anyhow."""
    what = [recipe.model.model_dump(mode="json"), dict(sizes), facts.code, layout.micro_batch_samples, recipe.train.precision,
            layout.device, layout.threads_per_rank]
    return f"{lake.profiles()}/{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]}.json"


def kept_costs(lake: Lake, key: str, layers: Sequence[str]) -> list[float] | None:
    """Seconds of a micro-batch's forward and backward in each layer; None where nobody has measured these layers, or what is
    kept is damaged: it is measured again."""
    if lake.store.facts(key) is None:
        return None
    try:
        seconds = json.loads(lake.store.read(key))["layer_seconds"]
        costs = [float(seconds[layer]) for layer in layers]
    except (KeyError, TypeError, ValueError):
        return None
    return costs if len(seconds) == len(layers) else None


def keep_costs(lake: Lake, key: str, seconds: Mapping[str, float]) -> None:
    """Raises StorageError where the lake cannot be written."""
    lake.store.put(key, json.dumps({"layer_seconds": dict(seconds)}, indent=2))
