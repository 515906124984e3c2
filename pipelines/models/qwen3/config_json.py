"""The ``config.json`` of a ``Qwen3ForCausalLM`` as a section ``model``.

Runs on: driver and ranks (no torch).
Takes:   the file's fields.
Gives:   ``ARCHITECTURE``.

Source: transformers, ``configuration_qwen3.py`` (fields and their defaults).
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from pipelines.config.section import Count
from pipelines.models.foreign_config import ForeignArchitecture
from pipelines.models.llama.config_json import EMBEDDING, LlamaFields, llama_settings, llama_shapes
from pipelines.models.qwen3.settings import Qwen3Model


class Qwen3Fields(LlamaFields):
    vocab_size: Count = 151_936
    intermediate_size: Count = 22_016
    head_dim: Count = 128
    num_key_value_heads: Count | None = 32
    max_position_embeddings: Count = 32_768
    use_sliding_window: Literal[False] = False
    sliding_window: int | None = None  # of no effect without the one before
    max_window_layers: int | None = None
    layer_types: list[Literal["full_attention"]] | None = None


ARCHITECTURE = ForeignArchitecture("qwen3", Qwen3Fields, partial(llama_settings, section=Qwen3Model), llama_shapes,
                                   prefix="model.", embedding=EMBEDDING)
