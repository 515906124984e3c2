"""The recipe's section ``model`` of a Qwen3.

Runs on: driver and ranks (no torch).
Takes:   the mapping under ``model``.
Gives:   ``SECTION``, its class.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pipelines.models.llama.settings import LlamaModel


class Qwen3Model(LlamaModel):
    """A Llama that normalises query and key of each head, so that no score of attention grows without bound."""

    normalises_heads: ClassVar[bool] = True

    kind: Literal["qwen3"] = "qwen3"  # type: ignore[assignment]  # a section of its own beside the Llama's


SECTION = Qwen3Model
