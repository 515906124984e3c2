"""The recipe's section ``model`` of a bigram model, a folder for ``tests/models/test_architectures.py``.

Runs on: driver and ranks (no torch).
Takes:   the mapping under ``model``.
Gives:   ``SECTION``, its class.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pipelines.config.models import ModelSection
from pipelines.config.section import Count


class BigramModel(ModelSection):
    """Each token alone says what the next one is."""

    task: ClassVar[str] = "language"

    kind: Literal["bigram"] = "bigram"
    width: Count = 8


SECTION = BigramModel
