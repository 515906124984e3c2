"""The recipe's section ``model`` of the GPT.

Runs on: driver and ranks (no torch).
Takes:   the mapping under ``model``.
Gives:   ``SECTION``, its class.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.models import Dropout, LanguageModelSection
from pipelines.config.numbers import divisors, one_of
from pipelines.config.section import Count, Whole
from pipelines.errors import SparkringError


class GptModel(LanguageModelSection):
    """A decoder-only transformer (GPT-2 architecture)."""

    kind: Literal["gpt"] = "gpt"
    num_layers: Annotated[Whole, Field(ge=1, le=2**14)] = 4
    num_heads: Count = 4
    width: Annotated[Whole, Field(ge=1, le=2**20)] = 128
    tied_embeddings: bool = True
    bias: bool = True
    dropout: Dropout = 0.0  # behind the embedding, attention and feed-forward net of each block

    def contradictions(self) -> list[SparkringError]:
        if self.width % self.num_heads == 0:
            return []
        return [SparkringError("model.num_heads", f"{self.num_heads} does not divide model.width ({self.width})",
                               f"use {one_of(divisors(self.width))}")]


SECTION = GptModel
