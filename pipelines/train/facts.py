"""What a model needs, layer by layer: parameters, memory of activations, work, what travels between layers.

Runs on: driver and ranks (no torch; a factory's model is looked at by ``probe.py`` in a process of its own).
Takes:   recipe section ``model`` and the dataset's sizes.
Gives:   ``ModelFacts``, from which plans, memory estimates and the automatic layout are made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipelines.config.recipe import GptModel, Recipe
from pipelines.errors import EXIT_OK, ConfigError, SparkringError

FLOAT_BYTES = 4
PROBE_TIMEOUT_S = 300.0
_looked_at: dict[tuple[str, str | None, str], ModelFacts] = {}  # users' models, by what was asked


@dataclass(frozen=True)
class LayerFacts:
    """One layer. Per sample: a sequence of ``sequence_length`` tokens, in float32."""

    name: str
    parameters: int  # of its own; one tied to an earlier layer counts there
    tied_parameters: int  # held a second time where the layer is in another segment than the one it shares with
    saved_bytes_per_sample: int  # kept from forward until backward
    output_bytes_per_sample: int  # what travels to the next layer, and its gradient back
    flops_per_sample: float  # forward and backward


@dataclass(frozen=True)
class ModelFacts:
    layers: tuple[LayerFacts, ...]
    random_layers: tuple[str, ...] = ()  # give another result when they are run again on the same: they draw random numbers
    mixing_layers: tuple[str, ...] = ()  # give a sample another result when another one is in its micro-batch
    unsplittable: str | None = None  # why its layers cannot be on several ranks
    sketched: bool = True  # a rank fills only its own layers; else it builds the whole model first
    code: dict[str, str] = field(default_factory=dict)  # of a user's model: hashes of its sources, by module, and structure
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


def model_facts(recipe: Recipe, vocabulary_size: int, sequence_length: int) -> ModelFacts:
    """Raises ConfigError when a factory's model cannot be built, or its result would depend on the layout and
    ``train.same_on_any_layout`` has not been given up."""
    model = recipe.model
    if isinstance(model, GptModel):
        return gpt_facts(model, vocabulary_size, sequence_length)
    order = json.dumps({"model": model.model_dump(mode="json"), "vocabulary_size": vocabulary_size,
                        "sequence_length": sequence_length})
    asked = (order, os.environ.get("PYTHONPATH"), str(Path.cwd()))  # where the probe finds modules
    if asked not in _looked_at or not _looked_at[asked].is_current():
        _looked_at[asked] = _probed(order)
    facts = _looked_at[asked]
    if recipe.train.same_on_any_layout:
        _refuse(facts.random_layers, model.factory, "give another result each time they are run on the same (dropout, noise, "
                "or state from call to call)", "set their dropout to 0")
        _refuse(facts.mixing_layers, model.factory, "give a sample another result when another one is in its micro-batch "
                "(normalisation over the batch, a dimension taken for another)", "use LayerNorm or GroupNorm, batch_first=True")
    return facts


def _refuse(layers: tuple[str, ...], factory: str, problem: str, remedy: str) -> None:
    if layers:
        names = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
        raise ConfigError(SparkringError(
            "train.same_on_any_layout", f"true, but layers {names} of {factory} {problem}, so what is learned would depend on "
            "the layout", f"{remedy}, or give it up with train.same_on_any_layout: false"))


def gpt_facts(model: GptModel, vocabulary_size: int, sequence_length: int) -> ModelFacts:
    """Of the GPT in ``models/gpt.py``, counted by hand.

    A block keeps 17 values per token and unit of width (its norms' inputs and outputs, query, key, value, the mixed
    values twice, the fourfold feed-forward twice) and the head one copy of the logits. Source for the manner of
    counting: Korthikanti et al. 2022, section 4.
    """
    width, vocabulary, length = model.width, vocabulary_size, sequence_length
    norm = width * (2 if model.bias else 1)
    block = 12 * width * width + (8 * width if model.bias else 0) + 2 * norm
    hidden_bytes = FLOAT_BYTES * length * width
    table = vocabulary * width
    blocks = [LayerFacts(f"block_{i}", block, 0, (19 if model.bias else 17) * hidden_bytes, hidden_bytes,
                         6.0 * block * length + 12.0 * length * length * width) for i in range(model.num_layers)]
    logits_bytes = FLOAT_BYTES * length * vocabulary
    return ModelFacts((
        LayerFacts("embedding", (vocabulary + length) * width, 0, 0, hidden_bytes, 0.0), *blocks,
        LayerFacts("head", norm + (0 if model.tied_embeddings else table), table if model.tied_embeddings else 0,
                   logits_bytes + 2 * hidden_bytes, logits_bytes, 6.0 * table * length)))


def _probed(order: str) -> ModelFacts:
    """The driver never imports torch, and a user's module may do anything as it is imported: so, in another process."""
    try:
        done = subprocess.run([sys.executable, "-m", "pipelines.train.probe"], input=order, capture_output=True, text=True,
                              errors="replace", timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(SparkringError("model.factory", f"was not done after {PROBE_TIMEOUT_S:g} s")) from error
    if done.returncode == EXIT_OK:
        return ModelFacts.from_json(done.stdout.splitlines()[-1])
    lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"ended with {done.returncode}"]
    place, _, problem = lines[-1].removeprefix("error: ").partition(": ")
    if done.returncode == ConfigError.exit_code:
        raise ConfigError(SparkringError(place, problem))
    raise ConfigError(SparkringError("model.factory", f"failed: {lines[-1]}", "\n".join(lines[-8:])))
