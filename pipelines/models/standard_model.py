"""A language model as other libraries know it: transformers' names, shapes and settings for what we hold under our own.

Runs on: driver, ranks, and anywhere an exported model is loaded (no torch).
Takes:   recipe section ``model``.
Gives:   ``Standard`` and ``standard_of``, which finds the module ``standard.py`` of an architecture's folder. An architecture
         without one keeps its own names.

A tensor of theirs is made of parts of ours, one after the other along the first dimension, and turned where they multiply from
the other side. Of GPT-2, with a width of 2:

    transformer.h.0.attn.c_attn.weight [2, 6]   block_0.query_key_value.weight [6, 2], turned
    transformer.h.0.attn.c_attn.bias [6]        block_0.query_bias [2], zeros [2], block_0.value_bias [2]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pipelines.config.models import ARCHITECTURES, Model
from pipelines.lake.task_facts import TaskFacts

NAMES_NOTE = "names"  # among the notes of weights that we write: whose names they have, where not ours


@dataclass(frozen=True)
class Zeros:
    """Values that they have and we leave out."""

    length: int


@dataclass(frozen=True)
class StandardTensor:
    name: str
    parts: tuple[str | Zeros, ...]  # names of ours
    turned: bool = False  # a matrix that we hold the other way round


@dataclass(frozen=True)
class Standard:
    """One model in the other's words."""

    model_type: str  # as they call the architecture
    tensors: tuple[StandardTensor, ...]  # in the order in which we hold their first parts
    config: Callable[[TaskFacts], dict[str, Any]]  # config.json, of a model for that task


def standard_of(settings: Model) -> Standard | None:
    """None where an architecture has no other name than ours."""
    module = f"{ARCHITECTURES[settings.kind]}.standard"
    if find_spec(module) is None:
        return None
    standard: Standard = import_module(module).standard(settings)
    return standard


def language_config(task: TaskFacts, vocabulary_size: int, **of_the_kind: Any) -> dict[str, Any]:
    """``config.json`` of any language model.

    Args:
        of_the_kind: what the architecture adds.
    """
    end = task.facts["end_of_text_id"]
    return {**of_the_kind, "vocab_size": vocabulary_size, "bos_token_id": end, "eos_token_id": end,
            "dtype": "float32", "torch_dtype": "float32", "use_cache": True}
