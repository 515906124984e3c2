"""The GPT as ``GPT2LMHeadModel``, which it is in other words.

Runs on: driver, ranks, and anywhere an exported model is loaded (no torch).
Takes:   recipe section ``model``.
Gives:   ``standard``.

What we leave out is zeros there: the bias of keys, which the softmax cancels, and all biases where ``bias`` is false.

Source: transformers, ``modeling_gpt2.py`` (names; weights of ``Conv1D`` are turned).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pipelines.lake.task_facts import TaskFacts
from pipelines.models.gpt.settings import GptModel
from pipelines.models.standard_model import Standard, StandardTensor, Zeros, language_config

MODEL_TYPE = "gpt2"
NORM_EPSILON = 1e-5  # torch's and theirs


def standard(settings: GptModel) -> Standard:
    width, bias = settings.width, settings.bias

    def bias_of(name: str, ours: str, length: int) -> StandardTensor:
        return StandardTensor(f"{name}.bias", (f"{ours}.bias" if bias else Zeros(length),))

    tensors = [StandardTensor("transformer.wte.weight", ("embedding.token.weight",)),
               StandardTensor("transformer.wpe.weight", ("embedding.position.weight",))]
    for i in range(settings.num_layers):
        theirs, ours = f"transformer.h.{i}", f"block_{i}"
        query_bias, value_bias = ((f"{ours}.query_bias", f"{ours}.value_bias") if bias else (Zeros(width), Zeros(width)))
        tensors += [
            StandardTensor(f"{theirs}.attn.c_attn.bias", (query_bias, Zeros(width), value_bias)),
            StandardTensor(f"{theirs}.ln_1.weight", (f"{ours}.attention_norm.weight",)),
            bias_of(f"{theirs}.ln_1", f"{ours}.attention_norm", width),
            StandardTensor(f"{theirs}.attn.c_attn.weight", (f"{ours}.query_key_value.weight",), turned=True),
            StandardTensor(f"{theirs}.attn.c_proj.weight", (f"{ours}.attention_out.weight",), turned=True),
            bias_of(f"{theirs}.attn.c_proj", f"{ours}.attention_out", width),
            StandardTensor(f"{theirs}.ln_2.weight", (f"{ours}.feed_norm.weight",)),
            bias_of(f"{theirs}.ln_2", f"{ours}.feed_norm", width),
            StandardTensor(f"{theirs}.mlp.c_fc.weight", (f"{ours}.feed_in.weight",), turned=True),
            bias_of(f"{theirs}.mlp.c_fc", f"{ours}.feed_in", 4 * width),
            StandardTensor(f"{theirs}.mlp.c_proj.weight", (f"{ours}.feed_out.weight",), turned=True),
            bias_of(f"{theirs}.mlp.c_proj", f"{ours}.feed_out", width)]
    tensors += [StandardTensor("transformer.ln_f.weight", ("head.norm.weight",)), bias_of("transformer.ln_f", "head.norm", width)]
    if not settings.tied_embeddings:
        tensors.append(StandardTensor("lm_head.weight", ("head.project.weight",)))
    return Standard(MODEL_TYPE, tuple(tensors), partial(_config, settings))


def _config(settings: GptModel, task: TaskFacts) -> dict[str, Any]:
    vocabulary_size, positions = settings.sizes_of(task.sizes)
    return language_config(
        task, vocabulary_size, architectures=["GPT2LMHeadModel"], model_type=MODEL_TYPE, n_embd=settings.width,
        n_layer=settings.num_layers, n_head=settings.num_heads, n_inner=4 * settings.width, n_positions=positions,
        n_ctx=positions, activation_function="gelu_new", layer_norm_epsilon=NORM_EPSILON, initializer_range=0.02,
        tie_word_embeddings=settings.tied_embeddings, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, scale_attn_weights=True)
