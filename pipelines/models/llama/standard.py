"""A Llama as ``LlamaForCausalLM`` and a Qwen3 as ``Qwen3ForCausalLM``: inside a block all names are theirs already.

Runs on: driver, ranks, and anywhere an exported model is loaded (no torch).
Takes:   recipe section ``model``.
Gives:   ``standard``.

Source: transformers, ``configuration_llama.py`` and ``configuration_qwen3.py``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pipelines.lake.task_facts import TaskFacts
from pipelines.models.llama.settings import LlamaModel
from pipelines.models.standard_model import Standard, StandardTensor, language_config

IN_A_BLOCK = ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
              "self_attn.q_norm", "self_attn.k_norm", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj",
              "mlp.down_proj")
ONLY_QWEN3 = ("self_attn.q_norm", "self_attn.k_norm")


def standard(settings: LlamaModel) -> Standard:
    inner = [name for name in IN_A_BLOCK if settings.normalises_heads or name not in ONLY_QWEN3]
    tensors = [StandardTensor("model.embed_tokens.weight", ("embedding.embed_tokens.weight",)),
               *(StandardTensor(f"model.layers.{i}.{name}.weight", (f"block_{i}.{name}.weight",))
                 for i in range(settings.num_layers) for name in inner),
               StandardTensor("model.norm.weight", ("head.norm.weight",))]
    if not settings.tied_embeddings:
        tensors.append(StandardTensor("lm_head.weight", ("head.lm_head.weight",)))
    return Standard(settings.kind, tuple(tensors), partial(_config, settings))


def _config(settings: LlamaModel, task: TaskFacts) -> dict[str, Any]:
    vocabulary_size, positions = settings.sizes_of(task.sizes)
    return language_config(
        task, vocabulary_size, **_OWN_CONFIG[settings.normalises_heads](settings), hidden_size=settings.width,
        intermediate_size=settings.width_of_feed, num_hidden_layers=settings.num_layers, num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_value_heads, head_dim=settings.width_of_head, hidden_act="silu",
        max_position_embeddings=positions, rms_norm_eps=settings.norm_epsilon,
        **_rope(settings),
        attention_bias=False, attention_dropout=0.0, initializer_range=0.02, tie_word_embeddings=settings.tied_embeddings)


def _rope(settings: LlamaModel) -> dict[str, Any]:
    """As today's versions and older ones read it."""
    scaling = settings.rope_scaling
    kind: dict[str, Any] = {"rope_type": "default"} if scaling is None else {
        "rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_turns,
        "high_freq_factor": scaling.high_turns, "original_max_position_embeddings": scaling.first_positions}
    return {"rope_theta": settings.rope_theta, "rope_parameters": {**kind, "rope_theta": settings.rope_theta},
            **({} if scaling is None else {"rope_scaling": kind})}


def _llama_config(settings: LlamaModel) -> dict[str, Any]:
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False, "pretraining_tp": 1}


def _qwen3_config(settings: LlamaModel) -> dict[str, Any]:
    return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "use_sliding_window": False, "sliding_window": None,
            "max_window_layers": settings.num_layers, "layer_types": ["full_attention"] * settings.num_layers}


_OWN_CONFIG = {False: _llama_config, True: _qwen3_config}
