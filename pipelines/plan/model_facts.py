"""What a model needs, layer by layer: parameters, memory of activations, work, what travels between layers.

Runs on: driver and ranks (pure).
Takes:   what a model's folder counts, or ``train/probe.py`` finds.
Gives:   ``ModelFacts``, from which plans, memory estimates and the automatic layout are made.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

FLOAT_BYTES = 4


@dataclass(frozen=True)
class LayerFacts:
    """One layer. What is said of a sample is for one of full size, in float32."""

    name: str
    parameters: int  # of its own; one tied to an earlier layer counts there
    tied_parameters: int  # held a second time where the layer is in another segment than the one it shares with
    saved_bytes_per_sample: int  # kept from forward until backward
    output_bytes_per_sample: int  # what travels to the next layer, and its gradient back
    flops_per_sample: float  # forward and backward
    buffer_bytes: int = 0  # constants beside the parameters; those shared with an earlier layer count there
    matrix_parameters: int = 0  # of the parameters, those in matrices that an optimizer may treat as a whole


@dataclass(frozen=True)
class ModelFacts:
    layers: tuple[LayerFacts, ...]
    random_layers: tuple[str, ...] = ()  # give another result when they are run again on the same: they draw random numbers
    mixing_layers: tuple[str, ...] = ()  # give a sample another result when another one is in its micro-batch
    unsplittable: str | None = None  # why its layers cannot be on several ranks
    sketched: bool = True  # a rank fills only its own layers; else it builds the whole model first
    group_samples: int = 1  # consecutive samples of a lane that a micro-batch must not part: one is normalised by the others
    # what a model is made of beside its section, as hashes: of a user's, its sources by module, and structure; of one that goes
    # on from a folder, the architecture, and each tensor by name
    code: dict[str, str] = field(default_factory=dict)
    sources: tuple[tuple[str, int, int], ...] = ()  # files of the code: path, time of change in ns, bytes

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> ModelFacts:
        content = json.loads(text)
        content["layers"] = tuple(LayerFacts(**layer) for layer in content["layers"])
        for names in ("random_layers", "mixing_layers"):
            content[names] = tuple(content[names])
        content["sources"] = tuple((path, changed_ns, size) for path, changed_ns, size in content["sources"])
        return ModelFacts(**content)

    def is_current(self) -> bool:
        """Whether the files of the code are still those that were looked at."""
        for path, changed_ns, size in self.sources:
            found = Path(path).stat() if Path(path).exists() else None
            if found is None or (found.st_mtime_ns, found.st_size) != (changed_ns, size):
                return False
        return True
