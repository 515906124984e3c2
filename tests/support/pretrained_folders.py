"""Small folders of models as transformers saves them, with random weights of which all matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.support.example_data import END_OF_TEXT, VOCABULARY_SIZE

LLAMA = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 8, "max_position_embeddings": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}
GPT2 = {"n_embd": 24, "n_layer": 4, "n_head": 2, "n_positions": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True, **LLAMA},
    "qwen3 untied": {"model_type": "qwen3", "tie_word_embeddings": False, **LLAMA},
    "llama": {"model_type": "llama", "tie_word_embeddings": False, **LLAMA},
    "llama scaled": {"model_type": "llama", **LLAMA, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 5e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 24}},
    "gpt2": {"model_type": "gpt2", **GPT2},
    "gpt2 untied": {"model_type": "gpt2", "tie_word_embeddings": False, **GPT2}}


def save_pretrained(folder: Path, name: str, *, dtype: torch.dtype = torch.float32, tokenizer: bytes | None = None,
                    vocab_size: int = VOCABULARY_SIZE, max_shard_size: str = "5GB", **config: Any) -> PreTrainedModel:
    """Writes one of ``CONFIGS``. The bias of GPT-2's keys stays 0, as in a fresh model."""
    content = {**CONFIGS[name], "vocab_size": vocab_size, "bos_token_id": END_OF_TEXT, "eos_token_id": END_OF_TEXT, **config}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**content), attn_implementation="eager")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            std = 0.15 if parameter.dim() == 2 else 0.1
            value = torch.randn(parameter.shape, generator=generator) * std + (
                1.0 if parameter.dim() == 1 and parameter_name.endswith("weight") else 0.0)
            if parameter_name.endswith("c_attn.bias"):
                width = len(value) // 3
                value[width : 2 * width] = 0
            parameter.copy_(value)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_bytes(tokenizer)
    return model


def change_config(folder: Path, **fields: Any) -> None:
    """Of a saved folder; a field of None is removed."""
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
