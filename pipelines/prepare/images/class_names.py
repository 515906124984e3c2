"""The classes of a dataset, in the order of their labels.

Runs on: driver.
Takes:   the labels that were found, as text.
Gives:   ``ordered_classes``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipelines.errors import DataError

MOST_CLASSES = 2**16  # more, and the labels are something else: names of files, times
_WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")


def ordered_classes(found: Iterable[str], given: tuple[str, ...] | None) -> tuple[str, ...]:
    """Those given by the recipe; else those found: whole numbers by their value, else by their characters.

    Raises:
        DataError: there are too few, or so many that they cannot be classes.
    """
    if given is not None:
        return given
    names = set(found)
    if len(names) < 2:
        raise DataError("prepare.inputs", f"the labels are of {len(names)} class{'' if names else 'es'}"
                        f"{'' if not names else ' (' + names.pop() + ')'}; at least 2 are wanted",
                        "give images of another class, or check where labels come from")
    if len(names) > MOST_CLASSES:
        raise DataError("prepare.inputs", f"there are {len(names):,} different labels; at most {MOST_CLASSES:,} can be classes",
                        "check where labels come from")
    numeric = all(_WHOLE.fullmatch(name) for name in names)
    return tuple(sorted(names, key=int) if numeric else sorted(names))
