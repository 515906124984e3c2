"""The files of inputs that Python reads as pieces that the tasks read, each image with its label.

Runs on: driver.
Takes:   the listed files of the inputs, and what their names say.
Gives:   ``pieces_of_files``; ``format_of_files``; ``format_of_content``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import BinaryIO

from pipelines.config.datasets import ImageInput, ImagePrepare
from pipelines.errors import DataError
from pipelines.lake.remote_folder import local_path
from pipelines.prepare.images.idx_files import MAGIC_BYTES, idx_content, is_idx
from pipelines.prepare.images.idx_pieces import idx_pieces
from pipelines.prepare.images.image_names import ImageNames
from pipelines.prepare.images.image_piece import ImagePiece
from pipelines.prepare.images.table_pieces import PARQUET, PETASTORM_METADATA, table_pieces
from pipelines.prepare.input_files import InputFile, as_listed, is_beside, opened_input, path_text
from pipelines.prepare.input_names import is_left_out

FILES_LOOKED_AT, LOOK_AHEAD_BYTES = 16, 64 * 1024  # files of an input, to recognise its format; see ``opened_input``


def pieces_of_files(index: int, files: Sequence[InputFile], prepare: ImagePrepare, names: ImageNames,
                    lake_root: Path) -> list[ImagePiece]:
    """All pieces of one input's files, in order.

    Raises:
        DataError: an IDX file is damaged, or has no labels; a table lacks a column; a class has a folder, and no file in it.
    """
    source = prepare.inputs[index]
    kind = format_of_files(source, files)
    if kind == "idx":
        return list(idx_pieces(files, names, prepare.max_image_pixels))
    if kind in ("table", "petastorm"):
        return list(table_pieces(files, kind, source, prepare.split_column))
    if names.table is None and prepare.classes is None:
        _refuse_empty_classes(index, prepare, files, lake_root)
    return list(_image_files(files, names))


def format_of_files(source: ImageInput, files: Sequence[InputFile]) -> str:
    """As the recipe says, or as the first files begin."""
    if source.format != "auto":
        return source.format
    for file in [] if source.labels is not None else files[:FILES_LOOKED_AT]:
        with as_listed(file):
            with opened_input(file, LOOK_AHEAD_BYTES) as stream:
                found = format_of_content(stream, file.bytes)
            if found == "table" and is_beside(file, PETASTORM_METADATA):
                return "petastorm"
        if found is not None:
            return found
    return "folder"


def format_of_content(file: BinaryIO, size_bytes: int) -> str | None:
    """``table`` or ``idx`` where a file, or the beginning of one, begins so."""
    if file.read(len(PARQUET)) == PARQUET:
        return "table"
    file.seek(0)
    return "idx" if is_idx(idx_content(file, size_bytes).read(MAGIC_BYTES)) else None


def _image_files(files: Sequence[InputFile], names: ImageNames) -> Iterator[ImagePiece]:
    for file in files:
        said = names.of(file.name)
        yield ImagePiece(file, "folder", path_text(file.path), 0, (said.label,), (said.split,), file.bytes)


def _refuse_empty_classes(index: int, prepare: ImagePrepare, files: Sequence[InputFile], lake_root: Path) -> None:
    """
    Raises:
        DataError: a folder that would be a class holds no file.
    """
    source = prepare.inputs[index]
    root = Path(local_path(source.path))
    if not root.is_dir():  # a glob, or a file
        return
    filled = {PurePath(file.name).parts[:depth] for file in files for depth in (1, 2)}
    parents = [root] if prepare.split.kind != "folder" else [root / parts[0] for parts in filled if len(parts) == 2]
    for folder in (folder for parent in sorted(set(parents)) if parent.is_dir() for folder in sorted(parent.iterdir())):
        left_out = is_left_out(folder.name, source)
        if folder.is_dir() and not left_out and folder.absolute() != lake_root and folder.relative_to(root).parts not in filled:
            raise DataError(f"prepare.inputs.{index}.path", f"{str(folder)!r} is the folder of a class, and holds no file"
                            f"{'' if source.pattern is None else f' that matches {source.pattern!r}'}",
                            "put images there, remove it, or leave it out with exclude")
