"""Llama and Qwen3: decoder-only transformers with rotary positions, as layered models.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   ``tokens_BT`` (int64, 0 <= value < vocabulary_size, T <= sequence_length).
Gives:   ``logits_BTV`` (float).

Inside a block, modules have the names that they have in a folder of ``LlamaForCausalLM`` and ``Qwen3ForCausalLM``.

Source: Touvron et al. 2023 (Llama: RMSNorm, SwiGLU, no biases); Su et al. 2021 (rotary positions); Ainslie et al. 2023
(grouped queries); Yang et al. 2025 (Qwen3: query and key normalised).
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.models.attention import causal_attention
from pipelines.models.context import KeptContext
from pipelines.models.initial_values import generator_of
from pipelines.models.layered import LayeredModel
from pipelines.models.llama.settings import LlamaModel
from pipelines.models.root_mean_square import RootMeanSquareNorm
from pipelines.models.rotary import turned, turns

INITIAL_STD = 0.02
FROM_ZERO = ("o_proj.weight", "down_proj.weight")  # so that every block begins as no change. Source: Zhang et al. 2019 (Fixup)


class LlamaEmbedding(nn.Module):
    """``tokens_BT -> hidden_BTD``."""

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary_size, width)

    def at(self, tokens_BT: Tensor, place_BT: Tensor) -> Tensor:
        """See ``models/context.py``; positions are the blocks' matter."""
        return self.embed_tokens(tokens_BT)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.embed_tokens(tokens_BT)


class Attention(nn.Module):
    """Query, key and value of each head, normalised where the architecture does so, then turned by their position."""

    turns_2Td: Tensor  # see ``models/rotary.py``

    def __init__(self, settings: LlamaModel, sequence_length: int) -> None:
        super().__init__()
        width, self.head_width, heads = settings.width, settings.width_of_head, settings.heads
        self.q_proj = nn.Linear(width, heads * self.head_width, bias=False)
        self.k_proj = nn.Linear(width, settings.key_value_heads * self.head_width, bias=False)
        self.v_proj = nn.Linear(width, settings.key_value_heads * self.head_width, bias=False)
        self.o_proj = nn.Linear(heads * self.head_width, width, bias=False)
        self.q_norm = RootMeanSquareNorm(self.head_width, settings.norm_epsilon) if settings.normalises_heads else nn.Identity()
        self.k_norm = RootMeanSquareNorm(self.head_width, settings.norm_epsilon) if settings.normalises_heads else nn.Identity()
        self.register_buffer("turns_2Td", torch.empty(2, sequence_length, self.head_width), persistent=False)

    def heads(self, hidden_BTD: Tensor, place_BT: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        query_BTHd, key_BTGd, value_BTGd = (project(hidden_BTD).unflatten(-1, (-1, self.head_width))
                                            for project in (self.q_proj, self.k_proj, self.v_proj))
        turns_2Td = self.turns_2Td[:, :hidden_BTD.shape[1]] if place_BT is None else self.turns_2Td[:, place_BT]
        query_BTHd, key_BTGd = turned(self.q_norm(query_BTHd), turns_2Td), turned(self.k_norm(key_BTGd), turns_2Td)
        return query_BTHd.transpose(1, 2), key_BTGd.transpose(1, 2), value_BTGd.transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU. Source: Shazeer 2020."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner_width, bias=False)
        self.up_proj = nn.Linear(width, inner_width, bias=False)
        self.down_proj = nn.Linear(inner_width, width, bias=False)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(hidden_BTD)) * self.up_proj(hidden_BTD))


class LlamaBlock(nn.Module):
    """Causal self-attention, then a feed-forward net, each on a normalised residual stream."""

    def __init__(self, settings: LlamaModel, sequence_length: int) -> None:
        super().__init__()
        self.input_layernorm = RootMeanSquareNorm(settings.width, settings.norm_epsilon)
        self.self_attn = Attention(settings, sequence_length)
        self.post_attention_layernorm = RootMeanSquareNorm(settings.width, settings.norm_epsilon)
        self.mlp = FeedForward(settings.width, settings.width_of_feed)

    def heads(self, hidden_BTD: Tensor, place_BT: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """See ``models/context.py``; without places they count from 0."""
        return self.self_attn.heads(self.input_layernorm(hidden_BTD), place_BT)

    def ended(self, hidden_BTD: Tensor, mixed_BHTd: Tensor) -> Tensor:
        """The block behind its attention."""
        hidden_BTD = hidden_BTD + self.self_attn.o_proj(mixed_BHTd.transpose(1, 2).flatten(2))
        return hidden_BTD + self.mlp(self.post_attention_layernorm(hidden_BTD))

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.ended(hidden_BTD, causal_attention(*self.heads(hidden_BTD)))


class LlamaHead(nn.Module):
    """Final normalisation and projection on the vocabulary: ``hidden_BTD -> logits_BTV``."""

    def __init__(self, settings: LlamaModel, vocabulary_size: int) -> None:
        super().__init__()
        self.norm = RootMeanSquareNorm(settings.width, settings.norm_epsilon)
        self.lm_head = nn.Linear(settings.width, vocabulary_size, bias=False)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.lm_head(self.norm(hidden_BTD))


class Llama(LayeredModel):
    """The layers in order, and for generation with what they have read remembered."""

    def new_context(self, rows: int) -> KeptContext:
        """For as many texts at once, in evaluation mode; nothing is read yet."""
        return KeptContext(self, rows, self.get_buffer("block_0.self_attn.turns_2Td").shape[1])


def sketch(settings: LlamaModel, seed: int, **dataset: int) -> LayeredModel:
    """The model of a recipe on the meta device: its structure, without memory.

    Args:
        dataset: its sizes, ``vocabulary_size`` and ``sequence_length``: longest input, in tokens.
    """
    (vocabulary_size, _), sequence_length = settings.sizes_of(dataset), dataset["sequence_length"]
    with torch.device("meta"):
        blocks = [(f"block_{i}", LlamaBlock(settings, sequence_length)) for i in range(settings.num_layers)]
        llama = Llama([("embedding", LlamaEmbedding(vocabulary_size, settings.width)), *blocks,
                       ("head", LlamaHead(settings, vocabulary_size))])
    if settings.tied_embeddings:
        llama.get_submodule("head.lm_head").weight = llama.get_submodule("embedding.embed_tokens").weight
    return llama


def fill(llama: LayeredModel, settings: LlamaModel, seed: int, layers: Collection[str]) -> None:
    """Gives some layers of a sketch their initial weights: the same whichever layers a rank fills, since each parameter
    has a generator of its own."""

    def initialise(name: str, value: Tensor) -> None:
        if name.endswith("turns_2Td"):
            value.copy_(turns(value.shape[1], settings.width_of_head, settings.rope_theta, settings.rope_scaling))
        elif value.dim() == 1:
            value.fill_(1.0)
        elif name.endswith(FROM_ZERO):
            value.zero_()
        else:
            value.normal_(0.0, INITIAL_STD, generator=generator_of(seed, name))

    llama.fill(layers, initialise)
