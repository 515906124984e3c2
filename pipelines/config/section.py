"""What the sections of recipe and platform are made of.

Runs on: driver and ranks.
Takes:   nothing.
Gives:   ``Section``, kinds of numbers with their bounds; ``KindedSection`` and ``kind_of`` for sections of which there are
         several kinds, such as ``model``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipelines.errors import SparkringError


def _no_truth_value(value: Any) -> Any:
    """YAML's ``yes`` and ``true`` would else count as 1."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth_value)]
MOST_COUNTED = 2**31 - 1  # what an INT of the tables holds
Count = Annotated[Whole, Field(ge=1, le=MOST_COUNTED)]
Bytes = Annotated[Whole, Field(ge=1, le=2**50)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]


class Section(BaseModel):
    """A group of settings: immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class KindedSection(Section):
    """One of several classes of a section, told apart by its key ``kind``."""

    kind: str

    def contradictions(self) -> list[SparkringError]:
        """What several of its settings together break."""
        return []


def kind_of(default: str, marks: Collection[str] = ()) -> Callable[[Any], str]:
    """For a ``Discriminator``: which kind of a section a mapping, or a section itself, is.

    Args:
        default: the kind of a mapping that does not say. marks: keys that stand for the kind of their name.
    """
    def kind(value: Any) -> str:
        given = value if isinstance(value, dict) else getattr(value, "__dict__", {})
        marked = next((mark for mark in marks if mark in given), default)
        return str(given.get("kind", marked))

    return kind
