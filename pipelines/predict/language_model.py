"""A trained language model, for people and programs: text in, text out.

Runs on: anywhere with torch; neither Spark nor Horovod.
Takes:   an exported folder.
Gives:   ``load_language_model``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from pipelines.errors import CheckpointError
from pipelines.lake.manifest import TOKENIZER_NAME
from pipelines.models.exported_model import load_model
from pipelines.tasks.generation import Writer


@dataclass(frozen=True)
class LanguageModel(Writer):
    """Ready to use: ``generate``; ``model``, a torch module from tokens to logits; ``tokenizer``."""

    notes: dict[str, str]  # step, validation loss, run


def load_language_model(folder: str | Path, *, factory: str | None = None) -> LanguageModel:
    """
    Args:
        factory: see ``load_model``.
    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others; it is not a model of language.
        ConfigError: the factory cannot be used.
    """
    exported = load_model(folder, factory=factory)
    if exported.task.name != "language":
        raise CheckpointError(str(folder), f"is a model for the task {exported.task.name!r}, not for language")
    try:
        tokenizer = Tokenizer.from_buffer(exported.files.read(TOKENIZER_NAME))
    except (OSError, ValueError) as error:
        raise CheckpointError(str(folder), f"is not an exported model ({error})", "export it again") from error
    return LanguageModel(exported.model, tokenizer, exported.task, exported.notes)
