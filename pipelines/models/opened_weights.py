"""A model's files of weights, opened: mapped into memory, so that nothing is read before it is used.

Runs on: anywhere a model is loaded (no torch where numpy's arrays are asked for).
Takes:   the folder of a model, as ``weights.py`` writes it.
Gives:   ``opened_weights``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open

from pipelines.lake.store import Store
from pipelines.lake.stored_weights import INDEX_NAME, WEIGHTS_NAME, weights_object


@dataclass(frozen=True)
class Weights:
    """What lies in them."""

    names: list[str]
    shape: Callable[[str], tuple[int, ...]]  # by its name
    get: Callable[[str], Any]  # a tensor, or numpy's array; what is written to it stays with the process
    notes: dict[str, str]


@contextmanager
def opened_weights(model: Store, framework: str = "pt") -> Iterator[Weights]:
    """
    Args:
        framework: pt or np.
    Raises:
        OSError, KeyError, TypeError, ValueError, SafetensorError: a file is missing or damaged.
    """
    with ExitStack() as files:
        def part(name: str) -> Any:
            return files.enter_context(safe_open(model.local_path(name), framework=framework))

        if weights_object(model) == INDEX_NAME:
            index = json.loads(model.read(INDEX_NAME))
            parts = {name: part(name) for name in sorted(set(index["weight_map"].values()))}
            places, notes = {name: parts[file] for name, file in index["weight_map"].items()}, index["metadata"]
        else:
            whole = part(WEIGHTS_NAME)
            places, notes = dict.fromkeys(whole.keys(), whole), whole.metadata() or {}
        yield Weights(list(places), lambda name: tuple(places[name].get_slice(name).get_shape()),
                      lambda name: places[name].get_tensor(name), notes)
