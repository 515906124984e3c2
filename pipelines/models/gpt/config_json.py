"""The ``config.json`` of a ``GPT2LMHeadModel`` as a section ``model``.

Runs on: driver and ranks (no torch).
Takes:   the file's fields.
Gives:   ``ARCHITECTURE``.

The bias of keys is not read: the softmax cancels it.

Source: transformers, ``configuration_gpt2.py`` (fields and their defaults).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipelines.config.section import Count
from pipelines.models.foreign_config import ForeignArchitecture, ForeignConfig
from pipelines.models.gpt.settings import GptModel
from pipelines.models.gpt.standard import MODEL_TYPE, NORM_EPSILON

EMBEDDING = "transformer.wte.weight"


class Gpt2Fields(ForeignConfig):
    vocab_size: Count = 50_257
    n_positions: Count = 1024
    n_ctx: int | None = None  # the same, in older folders
    n_embd: Count = 768
    n_layer: Count = 12
    n_head: Count = 12
    n_inner: int | None = None
    activation_function: Literal["gelu_new", "gelu_pytorch_tanh"] = "gelu_new"  # two names of one function
    layer_norm_epsilon: Annotated[float, Field(ge=NORM_EPSILON, le=NORM_EPSILON)] = NORM_EPSILON
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    reorder_and_upcast_attn: bool = False  # of no effect in float32
    add_cross_attention: Literal[False] = False
    tie_word_embeddings: bool = True
    # of heads for other tasks
    summary_type: str | None = None
    summary_use_proj: bool | None = None
    summary_activation: str | None = None
    summary_proj_to_labels: bool | None = None
    summary_first_dropout: float | None = None
    n_special: int | None = None
    predict_special_tokens: bool | None = None

    @field_validator("n_inner")
    @classmethod
    def _four_times_as_wide(cls, n_inner: int | None, known: ValidationInfo) -> int | None:
        if n_inner not in (None, 4 * known.data.get("n_embd", 0)):
            raise ValueError("4 x n_embd is wanted")
        return n_inner


def _settings(fields: Gpt2Fields) -> GptModel:
    return GptModel(num_layers=fields.n_layer, num_heads=fields.n_head, width=fields.n_embd,
                    tied_embeddings=fields.tie_word_embeddings, vocabulary_size=fields.vocab_size, positions=fields.n_positions)


def _shapes(settings: GptModel) -> dict[str, tuple[int, ...]]:
    width, table = settings.width, (settings.vocabulary_size or 0, settings.width)
    inner = {"ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,),
             "attn.c_attn.weight": (width, 3 * width), "attn.c_attn.bias": (3 * width,),
             "attn.c_proj.weight": (width, width), "attn.c_proj.bias": (width,),
             "mlp.c_fc.weight": (width, 4 * width), "mlp.c_fc.bias": (4 * width,),
             "mlp.c_proj.weight": (4 * width, width), "mlp.c_proj.bias": (width,)}
    return {EMBEDDING: table, "transformer.wpe.weight": (settings.positions or 0, width),
            **{f"transformer.h.{i}.{name}": shape for i in range(settings.num_layers) for name, shape in inner.items()},
            "transformer.ln_f.weight": (width,), "transformer.ln_f.bias": (width,),
            **({} if settings.tied_embeddings else {"lm_head.weight": table})}


ARCHITECTURE = ForeignArchitecture(MODEL_TYPE, Gpt2Fields, _settings, _shapes, prefix="transformer.", embedding=EMBEDDING,
                                   not_weights=(".attn.bias", ".attn.masked_bias"))
