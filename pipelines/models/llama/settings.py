"""The recipe's section ``model`` of a Llama.

Runs on: driver and ranks (no torch).
Takes:   the mapping under ``model``.
Gives:   ``SECTION``, its class; ``LlamaModel``, which Qwen3's extends; ``RopeScaling``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipelines.config.models import LanguageModelSection
from pipelines.config.numbers import divisors, one_of
from pipelines.config.section import Count, Section, Whole
from pipelines.errors import SparkringError

WIDE = 1024  # from this width on heads are twice as wide


class RopeScaling(Section):
    """How Llama 3 makes its window longer than it was first trained with: pairs that turn less than once within that window turn
    ``factor`` times as slowly, those that turn often as before. Source: transformers, ``modeling_rope_utils.py`` (llama3)."""

    factor: Annotated[float, Field(ge=1.0, le=1e6)]
    low_turns: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0  # within first_positions; fewer are slowed down
    high_turns: Annotated[float, Field(gt=0.0, le=1e6)] = 4.0  # more are left; those between are slowed down by a part
    first_positions: Count = 8192


class LlamaModel(LanguageModelSection):
    """A decoder-only transformer with rotary positions."""

    normalises_heads: ClassVar[bool] = False  # query and key of each head, before they are turned

    kind: Literal["llama"] = "llama"
    num_layers: Annotated[Whole, Field(ge=1, le=2**14)] = 4
    width: Annotated[Whole, Field(ge=1, le=2**20)] = 128
    head_width: Annotated[Whole, Field(ge=2, le=2**14)] | None = None  # even; null: 128 from a width of 1024 on, else 64
    num_heads: Count | None = None  # of queries; null: as many as the width holds
    num_key_value_heads: Count | None = None  # each serves as many heads of queries; null: one for each
    feed_width: Count | None = None  # within the feed-forward net; null: 8/3 of the width, up to a multiple of 64
    tied_embeddings: bool = True
    rope_theta: Annotated[float, Field(gt=1.0, le=1e12)] = 10_000.0  # larger for longer windows: the slowest turn of a position
    rope_scaling: RopeScaling | None = None
    norm_epsilon: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-6

    @property
    def width_of_head(self) -> int:
        return self.head_width or (128 if self.width >= WIDE else 64)

    @property
    def heads(self) -> int:
        return self.num_heads or max(1, self.width // self.width_of_head)

    @property
    def key_value_heads(self) -> int:
        return self.num_key_value_heads or self.heads

    @property
    def width_of_feed(self) -> int:
        return self.feed_width or -(-8 * self.width // (3 * 64)) * 64

    def contradictions(self) -> list[SparkringError]:
        found = []
        if self.width_of_head % 2:
            found.append(SparkringError("model.head_width", f"{self.head_width} is odd: positions turn values in pairs",
                                        f"use {self.width_of_head + 1}"))
        if self.rope_scaling is not None and self.rope_scaling.low_turns >= self.rope_scaling.high_turns:
            found.append(SparkringError("model.rope_scaling.low_turns", f"{self.rope_scaling.low_turns} is not below high_turns "
                                        f"({self.rope_scaling.high_turns})", "give the smaller one as low_turns"))
        if self.heads % self.key_value_heads:
            found.append(SparkringError("model.num_key_value_heads", f"{self.key_value_heads} does not divide the number of "
                                        f"heads ({self.heads})", f"use {one_of(divisors(self.heads))}"))
        return found


SECTION = LlamaModel
