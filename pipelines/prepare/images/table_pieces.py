"""Parquet files of one input as pieces: a row group each, with the labels in it.

Runs on: driver.
Takes:   the listed files of an input.
Gives:   ``table_pieces``; ``image_column``: which column holds the images.

Existing datasets of petastorm are such files: what is read of them is Parquet, never the pickle in ``_common_metadata``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipelines.config.datasets import ImageInput
from pipelines.errors import DataError
from pipelines.prepare.images.image_names import split_word
from pipelines.prepare.images.image_piece import ImagePiece
from pipelines.prepare.images.label_tables import label_text
from pipelines.prepare.input_files import InputFile, as_listed, parquet_file, path_text

PARQUET = b"PAR1"  # a file's first bytes
PETASTORM_METADATA = "_common_metadata"  # beside the files of a dataset of petastorm's
USUAL_IMAGES = ("image", "content")  # columns; the second is binaryFile's


def table_pieces(files: Sequence[InputFile], kind: str, source: ImageInput, split_column: str | None) -> Iterator[ImagePiece]:
    """
    Raises:
        DataError: a file is not Parquet, or lacks a column.
    """
    for file in files:
        with as_listed(file), parquet_file(file) as parquet:
            column = image_column({field.name: str(field.type) for field in parquet.schema_arrow}, file.input_index,
                                  path_text(file.path), source, split_column)
            first = 0
            for index in range(parquet.metadata.num_row_groups):
                said = [parquet.read_row_group(index, columns=[name]).column(0).to_pylist()
                        for name in (source.label, *([split_column] if split_column else []))]
                labels = tuple(map(label_text, said[0]))
                splits = tuple(None if word is None else split_word(str(word)) for word in said[1]) if split_column else (None,)
                group = parquet.metadata.row_group(index)
                if labels:
                    yield ImagePiece(file, kind, path_text(file.path), first, labels, splits, group.total_byte_size, index,
                                     column)
                first += group.num_rows


def image_column(types: Mapping[str, str], input_index: int, place: str, source: ImageInput, split_column: str | None) -> str:
    """The column of images: the one that the recipe names, or the one that is called so, or the only one of bytes.

    Args:
        types: of the table's columns, as Arrow or Spark name them. place: of the table.
    Raises:
        DataError: it is not there; the column of labels or of splits is not.
    """
    def fault(key: str, name: str) -> DataError:
        return DataError(f"prepare.inputs.{input_index}.{key}", f"{place} has no column {name!r}; it has {', '.join(types)}",
                         "name one of them")

    wanted = {"label": source.label} | ({"image": source.image} if source.image else {})
    for key, name in wanted.items():
        if name not in types:
            raise fault(key, name)
    if split_column is not None and split_column not in types:
        raise DataError("prepare.split.column", f"{place} has no column {split_column!r}; it has {', '.join(types)}",
                        "name one of them")
    if source.image:
        return source.image
    found = columns_of_images(types)
    if len(found) != 1:
        raise DataError(f"prepare.inputs.{input_index}.image", f"{place} has {len(found)} columns of bytes that may be the "
                        f"images ({', '.join(found) or 'none'}); it has {', '.join(types)}", "name the column of images")
    return found[0]


def columns_of_images(types: Mapping[str, str]) -> list[str]:
    """Those that may hold images; the one that is called so alone."""
    of_bytes = [name for name, kind in types.items() if "binary" in kind]
    usual = [name for name in USUAL_IMAGES if name in of_bytes]
    return usual[:1] or of_bytes
