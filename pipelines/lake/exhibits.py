"""What a task shows of its data and of a trained model, as data of a few kinds that are drawn by who does not know the task.

Runs on: ranks (write), driver (draws).
Takes:   texts, numbers and pictures.
Gives:   the kinds, and ``as_json`` of one: what a rank's record holds and a report draws.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TextExhibit:
    """A text that goes on from a prompt."""

    title: str
    prompt: str
    text: str  # without the prompt
    kind: str = "text"


@dataclass(frozen=True)
class TableExhibit:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    kind: str = "table"


@dataclass(frozen=True)
class MatrixExhibit:
    """Counts by row and column, such as what was true and what was said."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]  # of each row
    row_label: str
    column_label: str
    kind: str = "matrix"


@dataclass(frozen=True)
class Picture:
    png: str  # base64
    caption: str
    marked: bool = False  # to be seen first: a mistake


@dataclass(frozen=True)
class PicturesExhibit:
    title: str
    pictures: tuple[Picture, ...]
    in_a_row: int | None = None  # so many, where pictures of one row belong together; None: as many as there is room for
    kind: str = "pictures"


@dataclass(frozen=True)
class BarsExhibit:
    """How many there are of each of some names."""

    title: str
    bars: tuple[tuple[str, int], ...]
    note: str = ""  # what is not shown
    kind: str = "bars"


Exhibit = TextExhibit | TableExhibit | MatrixExhibit | PicturesExhibit | BarsExhibit


def as_json(exhibit: Exhibit) -> dict[str, Any]:
    return asdict(exhibit)
