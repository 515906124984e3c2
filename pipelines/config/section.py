"""What the sections of recipe and platform are made of.

Runs on: driver and ranks.
Takes:   nothing.
Gives:   ``Section``, and kinds of numbers with their bounds.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


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
