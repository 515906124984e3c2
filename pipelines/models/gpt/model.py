"""GPT: a decoder-only transformer as a layered model.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   ``tokens_BT`` (int64, 0 <= value < vocabulary_size, T <= positions).
Gives:   ``logits_BTV`` (float).

Source: Radford et al. 2019 (GPT-2: pre-norm, learned positions, initialisation, tied embeddings).
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.models.attention import causal_attention
from pipelines.models.context import KeptContext
from pipelines.models.gpt.settings import GptModel
from pipelines.models.initial_values import generator_of
from pipelines.models.layered import LayeredModel
from pipelines.models.matrices import StackedLinear

INITIAL_STD = 0.02


class Embedding(nn.Module):
    """Token plus position embedding: ``tokens_BT -> hidden_BTD``."""

    def __init__(self, vocabulary_size: int, positions: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.token = nn.Embedding(vocabulary_size, width)
        self.position = nn.Embedding(positions, width)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.dropout(self.token(tokens_BT) + self.position.weight[: tokens_BT.shape[1]])

    def at(self, tokens_BT: Tensor, place_BT: Tensor) -> Tensor:
        """See ``models/context.py``."""
        return self.token(tokens_BT) + self.position(place_BT)


class Block(nn.Module):
    """Causal self-attention, then a four times wider feed-forward net, each on a normalised residual stream.

    Keys have no bias: the softmax cancels it, so its gradient is rounding noise, which Adam would scale up to full
    steps and which differs with every layout. Source: Radford et al. 2022 (Whisper) leaves it out too.
    """

    def __init__(self, width: int, num_heads: int, bias: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_dropout, self.feed_dropout = nn.Dropout(dropout), nn.Dropout(dropout)
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width, bias=bias)
        self.query_key_value = StackedLinear(width, width, 3, bias=False)
        self.query_bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.value_bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.attention_out = nn.Linear(width, width, bias=bias)
        self.feed_norm = nn.LayerNorm(width, bias=bias)
        self.feed_in = nn.Linear(width, 4 * width, bias=bias)
        self.feed_out = nn.Linear(4 * width, width, bias=bias)

    def heads(self, hidden_BTD: Tensor, place_BT: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of each position; where it is means nothing to a block."""
        batch, length, width = hidden_BTD.shape
        heads_3BHTd = (self.query_key_value(self.attention_norm(hidden_BTD))
                       .view(batch, length, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4))
        query, key, value = heads_3BHTd.unbind(0)
        if self.query_bias is not None and self.value_bias is not None:
            query = query + self.query_bias.view(self.num_heads, 1, -1)
            value = value + self.value_bias.view(self.num_heads, 1, -1)
        return query, key, value

    def ended(self, hidden_BTD: Tensor, mixed_BHTd: Tensor) -> Tensor:
        """The block behind its attention."""
        mixed_BTD = self.attention_out(mixed_BHTd.transpose(1, 2).flatten(2))
        hidden_BTD = hidden_BTD + self.attention_dropout(mixed_BTD)
        widened = functional.gelu(self.feed_in(self.feed_norm(hidden_BTD)), approximate="tanh")
        return hidden_BTD + self.feed_dropout(self.feed_out(widened))

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.ended(hidden_BTD, causal_attention(*self.heads(hidden_BTD)))


class Head(nn.Module):
    """Final normalisation and projection on the vocabulary: ``hidden_BTD -> logits_BTV``."""

    def __init__(self, vocabulary_size: int, width: int, bias: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=bias)
        self.project = nn.Linear(width, vocabulary_size, bias=False)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.project(self.norm(hidden_BTD))


class Gpt(LayeredModel):
    """The layers in order, and for generation with what they have read remembered."""

    def new_context(self, rows: int) -> KeptContext:
        """For as many texts at once, in evaluation mode; nothing is read yet."""
        return KeptContext(self, rows, self.get_parameter("embedding.position.weight").shape[0])


def sketch(settings: GptModel, seed: int, **dataset: int) -> LayeredModel:
    """The GPT of a recipe on the meta device: its structure, without memory.

    Args:
        dataset: its sizes, ``vocabulary_size`` and ``sequence_length``.
    """
    vocabulary_size, positions = settings.sizes_of(dataset)
    with torch.device("meta"):
        blocks = [(f"block_{i}", Block(settings.width, settings.num_heads, settings.bias, settings.dropout))
                  for i in range(settings.num_layers)]
        gpt = Gpt([("embedding", Embedding(vocabulary_size, positions, settings.width, settings.dropout)), *blocks,
                   ("head", Head(vocabulary_size, settings.width, settings.bias))])
    if settings.tied_embeddings:
        gpt.get_submodule("head.project").weight = gpt.get_submodule("embedding.token").weight
    return gpt


def fill(gpt: LayeredModel, settings: GptModel, seed: int, layers: Collection[str]) -> None:
    """Gives some layers of a sketch their initial weights: the same whichever layers a rank fills, since each parameter
    has a generator of its own."""
    residual_std = INITIAL_STD / math.sqrt(2 * settings.num_layers)  # keeps the residual stream's variance near 1

    def initialise(name: str, parameter: Tensor) -> None:
        if parameter.dim() == 1:
            parameter.fill_(1.0 if "norm.weight" in name else 0.0)
            return
        std = residual_std if name.endswith(("attention_out.weight", "feed_out.weight")) else INITIAL_STD
        parameter.normal_(0.0, std, generator=generator_of(seed, name))

    gpt.fill(layers, initialise)
