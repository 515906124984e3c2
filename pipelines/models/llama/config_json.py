"""The ``config.json`` of a ``LlamaForCausalLM`` as a section ``model``.

Runs on: driver and ranks (no torch).
Takes:   the file's fields.
Gives:   ``ARCHITECTURE``; ``LlamaFields``, ``llama_settings`` and ``llama_shapes``, which Qwen3's extends.

Source: transformers, ``configuration_llama.py`` (fields and their defaults).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipelines.config.section import Count
from pipelines.models.foreign_config import ForeignArchitecture, ForeignConfig
from pipelines.models.llama.settings import LlamaModel, RopeScaling

USUAL_THETA = 10_000.0
EMBEDDING = "model.embed_tokens.weight"


class Rope(BaseModel):
    """Other types turn positions at other speeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rope_type: Literal["default", "llama3"] = "default"
    rope_theta: float | None = None
    factor: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None

    @property
    def scaling(self) -> RopeScaling | None:
        """Raises ValidationError where a number is missing."""
        if self.rope_type == "default":
            return None
        return RopeScaling.model_validate({"factor": self.factor, "low_turns": self.low_freq_factor,
                                           "high_turns": self.high_freq_factor,
                                           "first_positions": self.original_max_position_embeddings})


class LlamaFields(ForeignConfig):
    vocab_size: Count = 32_000
    hidden_size: Count = 4096
    intermediate_size: Count = 11_008
    num_hidden_layers: Count = 32
    num_attention_heads: Count = 32
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    hidden_act: Literal["silu"] = "silu"
    max_position_embeddings: Count = 2048
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    rope_theta: float | None = None
    rope_parameters: Rope | None = None
    rope_scaling: Rope | None = None  # older folders' name of it
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    rope_interleaved: Literal[False] = False  # of pairs of neighbours
    is_llama_config: bool = True


def llama_settings(fields: LlamaFields, section: type[LlamaModel] = LlamaModel) -> LlamaModel:
    """What is given twice is as in ``rope_scaling``, as transformers reads it."""
    rope = fields.rope_scaling or fields.rope_parameters or Rope()
    return section(
        num_layers=fields.num_hidden_layers, width=fields.hidden_size, num_heads=fields.num_attention_heads,
        head_width=fields.head_dim or fields.hidden_size // fields.num_attention_heads,
        num_key_value_heads=fields.num_key_value_heads or fields.num_attention_heads, feed_width=fields.intermediate_size,
        tied_embeddings=fields.tie_word_embeddings, rope_theta=rope.rope_theta or fields.rope_theta or USUAL_THETA,
        rope_scaling=rope.scaling, norm_epsilon=fields.rms_norm_eps,
        vocabulary_size=fields.vocab_size, positions=fields.max_position_embeddings)


def llama_shapes(settings: LlamaModel) -> dict[str, tuple[int, ...]]:
    width, feed, head = settings.width, settings.width_of_feed, settings.width_of_head
    queries, keys = settings.heads * head, settings.key_value_heads * head
    table = (settings.vocabulary_size or 0, width)
    inner = {"input_layernorm": (width,), "self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width),
             "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, queries), "post_attention_layernorm": (width,),
             "mlp.gate_proj": (feed, width), "mlp.up_proj": (feed, width), "mlp.down_proj": (width, feed)}
    if settings.normalises_heads:
        inner |= {"self_attn.q_norm": (head,), "self_attn.k_norm": (head,)}
    return {EMBEDDING: table, "model.norm.weight": (width,),
            **({} if settings.tied_embeddings else {"lm_head.weight": table}),
            **{f"model.layers.{i}.{name}.weight": shape for i in range(settings.num_layers) for name, shape in inner.items()}}


ARCHITECTURE = ForeignArchitecture("llama", LlamaFields, llama_settings, llama_shapes, prefix="model.", embedding=EMBEDDING,
                                   not_weights=(".rotary_emb.inv_freq",))
