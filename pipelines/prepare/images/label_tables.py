"""Tables of labels: CSV, JSON lines or Parquet with a row for each image file.

Runs on: driver.
Takes:   the listed files of an input's ``labels``, or copies of them.
Gives:   ``read_labels``: label and split by the name of an image file; ``label_text``.

The first row of a CSV file names its columns. Names of image files are relative to the input, or without the ending.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pipelines.config.datasets import LabelTable
from pipelines.errors import DataError
from pipelines.prepare.images.image_names import NamedImage, split_word
from pipelines.prepare.input_files import InputFile, as_listed, opened_input, parquet_file, path_text

ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
MOST_FIELD_BYTES = 1024**2


class LabelColumns(NamedTuple):
    image: str
    label: str
    split: str | None  # None: the table does not say


class LabelFault(Exception):  # noqa: N818 - becomes a DataError with the file's place
    """What is wrong with a file."""


def read_labels(files: list[InputFile], table: LabelTable, split_column: str | None, place: str) -> dict[str, NamedImage]:
    """
    Raises:
        DataError: a file cannot be read, lacks a column, names no image in a row, or gives an image two labels.
    """
    columns = LabelColumns(table.image, table.label, split_column)
    found: dict[str, NamedImage] = {}
    for file in files:
        source = path_text(file.path)
        try:
            with as_listed(file):
                for position, (name, label, split) in enumerate(_rows(file, table.format, columns)):
                    if name is None or not str(name).strip():
                        raise LabelFault(f"names no image in row {position}")
                    row = NamedImage(label_text(label), None if split is None else split_word(str(split)), source, position)
                    key = str(PurePosixPath(str(name).replace("\\", "/").lstrip("/")))
                    before = found.setdefault(key, row)
                    if before[:2] != row[:2]:
                        raise LabelFault(f"says {row.label!r} of {key!r} in row {position}, and {before.label!r} in row "
                                         f"{before.position} of {before.source}")
        except DataError as error:
            raise DataError(place, error.problem, error.remedy) from None
        except LabelFault as error:
            raise DataError(place, f"{source} {error}", "correct it") from None
    return found


def label_text(value: Any) -> str | None:
    """A label as text, without spaces around it; None where nothing is left: the image is ``unlabelled``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value).strip() or None if isinstance(value, str | int) else None


def _rows(file: InputFile, given: str, columns: LabelColumns) -> Iterator[tuple[Any, Any, Any]]:
    """Name, label and split of each row."""
    form = given if given != "auto" else ENDINGS.get(PurePosixPath(file.name).suffix.lower(), "csv")
    try:
        if form == "parquet":
            yield from _parquet_rows(file, columns)
        else:
            with opened_input(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
                yield from _csv_rows(text, columns) if form == "csv" else _json_rows(text, columns)
    except UnicodeDecodeError as error:
        raise LabelFault(f"is not text: byte {error.start} is not UTF-8") from None


def _csv_rows(text: io.TextIOWrapper, columns: LabelColumns) -> Iterator[tuple[Any, Any, Any]]:
    csv.field_size_limit(MOST_FIELD_BYTES)
    reader = csv.DictReader(text, strict=True)
    try:
        _check_columns(list(reader.fieldnames or ()), columns)
        for row in reader:
            yield row[columns.image], row[columns.label], row[columns.split] if columns.split else None
    except csv.Error as error:
        raise LabelFault(f"is not CSV in line {reader.line_num}: {error}") from None


def _json_rows(text: io.TextIOWrapper, columns: LabelColumns) -> Iterator[tuple[Any, Any, Any]]:
    for number, line in enumerate(text):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LabelFault(f"is not JSON in line {number + 1}: {error}") from None
        if not isinstance(row, dict):
            raise LabelFault(f"holds a JSON {type(row).__name__} in line {number + 1}, not an object")
        _check_columns([*row, columns.label], columns)  # an image may lack a label
        yield row[columns.image], row.get(columns.label), row[columns.split] if columns.split else None


def _parquet_rows(file: InputFile, columns: LabelColumns) -> Iterator[tuple[Any, Any, Any]]:
    with parquet_file(file) as parquet:
        _check_columns(parquet.schema_arrow.names, columns)
        wanted = [columns.image, columns.label, *([columns.split] if columns.split else [])]
        for batch in parquet.iter_batches(columns=wanted):
            values = [batch.column(batch.schema.get_field_index(name)).to_pylist() for name in wanted]
            yield from zip(*values, *([] if columns.split else [[None] * len(batch)]), strict=True)


def _check_columns(names: list[str], columns: LabelColumns) -> None:
    for name in columns:
        if name is not None and name not in names:
            raise LabelFault(f"has no column {name!r}; it has {', '.join(names) or 'none'}")
