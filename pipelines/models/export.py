"""A trained model as a folder that needs neither Spark nor Horovod.

Runs on: rank 0 (save), anywhere with torch (load).
Takes:   parameters and buffers by name, the recipe section, what the task adds (of language the dataset's tokenizer.json).
Gives:   ``model.safetensors`` (weights, step, losses), ``config.json`` (sizes), ``tokenizer.json`` (Hugging Face format).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from pipelines.config.models import Model
from pipelines.errors import CheckpointError
from pipelines.lake.manifest import TOKENIZER_NAME
from pipelines.lake.paths import WEIGHTS_NAME
from pipelines.lake.store import Store
from pipelines.models.build import build_model
from pipelines.models.generate import generate
from pipelines.models.layered import LayeredModel
from pipelines.models.weights import write_weights

CONFIG_NAME = "config.json"


def save_model(model: Store, state: Iterable[tuple[str, torch.Tensor]],
               specs: Mapping[str, tuple[torch.Size, torch.dtype]], settings: Model, *, config: Mapping[str, Any],
               files: Mapping[str, bytes], facts: dict[str, str]) -> None:
    """Writes the model, or replaces its weights, which are written last: at any moment one whole
    model is there.

    Args:
        state: every parameter and persistent buffer once, on the CPU; taken and written one at a time, so that a model that
            no rank could hold can be saved. specs: name to shape and type, in the order of ``state``.
        config: what ``config.json`` says beside ``settings``. files: content of further ones, by name.
        facts: short notes kept in the header of the weights file, such as step and validation loss.
    Raises:
        StorageError: it cannot be written.
    """
    described = json.dumps({**settings.model_dump(mode="json"), **config}, indent=2).encode()
    for name, content in {CONFIG_NAME: described, **files}.items():
        if model.facts(name) is None:  # constant within a run, so only the weights are ever replaced
            model.put(name, content)
    with model.writer(WEIGHTS_NAME) as file:
        write_weights(file, state, specs, facts)


@dataclass(frozen=True)
class LanguageModel:
    """An exported model ready to use."""

    model: LayeredModel
    tokenizer: Tokenizer
    sequence_length: int
    end_of_text_id: int
    facts: dict[str, str]

    def generate(self, prompt: str, num_tokens: int = 100, *, temperature: float = 0.8, top_k: int = 50,
                 seed: int = 0) -> str:
        """The prompt and its continuation as text."""
        start = self.tokenizer.encode(prompt).ids or [self.end_of_text_id]
        tokens = generate(self.model, start, num_tokens, self.sequence_length, temperature=temperature, top_k=top_k,
                          seed=seed, stop_token=self.end_of_text_id)
        return self.tokenizer.decode(tokens)


def load_model(folder: str | Path, *, factory: str | None = None) -> LanguageModel:
    """Loads an exported folder.

    Args:
        factory: for a model of your own, its ``model.factory`` again: a folder of weights alone never decides which
            code is imported.
    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
        ConfigError: the factory cannot be used.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        vocabulary_size, sequence_length = config.pop("vocabulary_size"), config.pop("sequence_length")
        end_of_text_id = config.pop("end_of_text_id")
        settings: Model = TypeAdapter(Model).validate_python(config)
        if settings.users_factory not in (None, factory):
            raise CheckpointError(str(folder), f"was made by the factory {settings.users_factory}",
                                  f"load_model(..., factory={settings.users_factory!r}) if you trust it")
        model = build_model(settings, {"vocabulary_size": vocabulary_size, "sequence_length": sequence_length}, seed=0)
        with safe_open(folder / WEIGHTS_NAME, framework="pt") as weights:
            facts = weights.metadata() or {}
            model.load_unique_state({name: weights.get_tensor(name) for name in weights.keys()})  # noqa: SIM118
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_NAME))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CheckpointError(str(folder), f"is not an exported model ({error})", "export it again") from error
    return LanguageModel(model.eval(), tokenizer, sequence_length, end_of_text_id, facts)
