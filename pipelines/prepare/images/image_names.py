"""What is known of an image file by its name: label and split, from its folders or a table of labels.

Runs on: driver, executors.
Takes:   a name relative to the input.
Gives:   ``ImageNames``; ``split_word``; ``refuse_splits_as_classes``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from pipelines.errors import DataError

SPLIT_WORDS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
               "test": "test", "testing": "test", "t10k": "test"}


class NamedImage(NamedTuple):
    """What a table, or a name itself, says of an image."""

    label: str | None
    split: str | None
    source: str = ""  # of the table
    position: int = 0  # of the row


def split_word(word: str) -> str:
    """One of the splits' names; any other word as it is."""
    return SPLIT_WORDS.get(word.strip().lower(), word)


def refuse_splits_as_classes(folders: Collection[str], place: str) -> None:
    """
    Args:
        folders: of an input, that would be its classes. place: of the input in the recipe.
    Raises:
        DataError: they are called as splits are.
    """
    words = {SPLIT_WORDS.get(folder.lower()) for folder in folders}
    if "train" in words and None not in words:
        raise DataError(place, f"its folders are called {', '.join(sorted(folders))}, as splits are, and would be the classes",
                        "set prepare.split.kind: folder, and they are the splits, with a folder for each class in them; or name "
                        "them in prepare.classes, if they are the classes")


@dataclass(frozen=True)
class ImageNames:
    """Of one input."""

    split_by_folder: bool
    table: Mapping[str, NamedImage] | None = None  # by names, or names without their ending; None: the folders are the labels

    def of(self, name: str) -> NamedImage:
        path = PurePosixPath(name)
        split, rest = self._split(path)
        if self.table is None:
            return NamedImage(rest.parts[0] if len(rest.parts) > 1 else None, split)
        key = self.key(name)
        row = NamedImage(None, None) if key is None else self.table[key]
        return row._replace(split=split) if self.split_by_folder else row

    def key(self, name: str) -> str | None:
        """Of the table's row for a file; None where there is none."""
        without = str(PurePosixPath(name).with_suffix(""))
        return next((key for key in (name, without) if self.table and key in self.table), None)

    def _split(self, path: PurePosixPath) -> tuple[str | None, PurePosixPath]:
        """By the first folder, or the first word of the name; and the rest of the path."""
        if not self.split_by_folder:
            return None, path
        first = path.parts[0]
        if len(path.parts) > 1:
            return split_word(first), path.relative_to(first)
        return split_word(first.replace("_", "-").split("-")[0]), path  # train-images-idx3-ubyte
