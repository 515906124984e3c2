"""What one reader reads at once: an image file, a range of the images in one file, or a row group of a table.

Runs on: driver (finds pieces), executors (read them).
Takes:   nothing.
Gives:   ``ImagePiece``.
"""

from __future__ import annotations

from typing import NamedTuple

from pipelines.lake.manifest import SPLITS
from pipelines.prepare.input_files import InputFile


class ImagePiece(NamedTuple):
    """Images of one file, with what is known of each."""

    file: InputFile
    format: str  # idx: rows of a file; folder: the file is an image; table, petastorm: a row group of a Parquet file
    source: str  # what its records, and errors, call it
    first: int  # row
    labels: tuple[str | None, ...]  # of each row
    splits: tuple[str | None, ...]  # of each row; or one, of all of them
    bytes: int
    row_group: int = 0
    column: str = ""  # of images in a table

    @property
    def rows(self) -> int:
        return len(self.labels)

    def class_labels(self) -> set[str]:
        """Those of images that are of a split."""
        if len(self.splits) == 1 and self.splits[0] in (None, *SPLITS):
            return {label for label in self.labels if label is not None}
        return {label for row, label in enumerate(self.labels) if label is not None and self.split(row) in (None, *SPLITS)}

    def split(self, row: int) -> str | None:
        """Of the piece's row."""
        return self.splits[row if len(self.splits) > 1 else 0]
