"""What an evaluation found beside its figures: of each class, of each confusion of two, and what is to be shown.

Runs on: rank 0 (writes), driver (loads into tables, draws).
Takes:   values that a task made of sums over all ranks.
Gives:   ``Findings``; a task without classes has none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.lake.exhibits import Exhibit


@dataclass(frozen=True)
class ClassFigures:
    """A row of table ``class_metrics``. Null is what nothing tells of: the precision of a class that was never said."""

    class_index: int
    class_name: str
    samples: int  # that are of it
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Confusion:
    """A row of table ``confusions``: samples of one class of which one was said. Pairs without a sample have no row."""

    true_class: str
    said_class: str
    samples: int


@dataclass(frozen=True)
class Findings:
    classes: tuple[ClassFigures, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    exhibits: tuple[Exhibit, ...] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)
