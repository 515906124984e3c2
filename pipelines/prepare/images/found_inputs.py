"""What the inputs of images hold, before any image is decoded.

Runs on: driver.
Takes:   the listed inputs, and where the version is made.
Gives:   ``FoundInputs``, found by ``find_inputs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pyspark.sql import SparkSession

from pipelines.config.datasets import ImagePrepare
from pipelines.prepare.build_order import BuildOrder
from pipelines.prepare.images.decoding import FoundShape
from pipelines.prepare.images.image_names import ImageNames, refuse_splits_as_classes
from pipelines.prepare.images.image_piece import ImagePiece
from pipelines.prepare.images.image_pieces import pieces_of_files
from pipelines.prepare.images.image_records import Found, ImageRecord, refused
from pipelines.prepare.images.label_tables import read_labels
from pipelines.prepare.images.local_images import local_shapes
from pipelines.prepare.images.remote_images import (
    RemoteImages,
    copied,
    format_of_remote,
    remote_files,
    remote_input,
    remote_shapes,
)
from pipelines.prepare.images.remote_tables import RemoteTable, remote_table, table_shapes
from pipelines.prepare.inputs import spark_reads


@dataclass
class FoundInputs:
    """All inputs together."""

    pieces: list[ImagePiece] = field(default_factory=list)  # of files that Python reads
    remote: list[RemoteImages] = field(default_factory=list)  # image files at URLs that Spark reads
    tables: list[RemoteTable] = field(default_factory=list)  # at URLs
    refused: list[ImageRecord] = field(default_factory=list)  # labels without an image

    @property
    def images(self) -> int:
        """As many as there are at most."""
        return (sum(piece.rows for piece in self.pieces) + sum(len(images.found) for images in self.remote)
                + sum(table.rows for table in self.tables))

    @property
    def bytes(self) -> int:
        """Of the images, as they are stored."""
        return (sum(piece.bytes for piece in self.pieces) + sum(image.bytes for images in self.remote for image in images.found)
                + sum(table.bytes for table in self.tables))

    def labels(self) -> set[str]:
        """Those of images that have one, and are of a split."""
        sets = [piece.class_labels() for piece in self.pieces] + [images.class_labels() for images in self.remote]
        return set[str]().union(*sets, *(table.labels for table in self.tables))

    def splits(self) -> set[str | None]:
        return {split for piece in self.pieces for split in piece.splits} | {
            image.split for images in self.remote for image in images.found} | {
            split for table in self.tables for split in table.splits}

    def shapes(self, session: Callable[[], SparkSession], prepare: ImagePrepare) -> Iterator[FoundShape]:
        """Of the first images, found as they are asked for."""
        yield from local_shapes(self.pieces, prepare.max_image_pixels, prepare.max_image_bytes)
        for images in self.remote:
            yield from remote_shapes(session(), images, prepare)
        for table in self.tables:
            yield from table_shapes(session(), table, prepare)


def find_inputs(order: BuildOrder, prepare: ImagePrepare) -> FoundInputs:
    """
    Raises:
        DataError: an input is damaged, has no labels, or lacks a column; its folders are splits, not classes.
    """
    found = FoundInputs()
    for index, source in enumerate(prepare.inputs):
        names = _names(order, index, prepare)
        files = [file for file in order.listing.files if file.input_index == index]
        if spark_reads(source.path):
            remote = remote_files(order.session(), source, source.place(index))
            kind = format_of_remote(order.session(), source, remote, source.place(index))
            if kind in ("table", "petastorm"):
                found.tables.append(remote_table(order.session(), index, kind, sum(file.bytes for file in remote.files), prepare))
                continue
            if kind == "folder":
                found.remote.append(remote_input(index, remote, names))
                _check_folders(found.remote[-1].class_labels(), names, prepare, source.place(index))
                found.refused += _without_image(names, (file.name for file in remote.files))
                continue
            files = copied(order.session(), remote, index, source.place(index), order.staging)
        pieces = pieces_of_files(index, files, prepare, names, order.lake.root)
        _check_folders({label for piece in pieces if piece.format == "folder" for label in piece.class_labels()}, names, prepare,
                       source.place(index))
        found.pieces += pieces
        found.refused += _without_image(names, (file.name for file in files))
    return found


def _check_folders(labels: set[str], names: ImageNames, prepare: ImagePrepare, place: str) -> None:
    """Where nobody has said that the first folders are classes, or that they are splits."""
    if names.table is None and prepare.split.kind == "hash" and prepare.classes is None:
        refuse_splits_as_classes(labels, place)


def _names(order: BuildOrder, index: int, prepare: ImagePrepare) -> ImageNames:
    """What the names of an input's files say."""
    source, number = prepare.inputs[index].labels, prepare.label_table(index)
    by_folder = prepare.split.kind == "folder"
    if source is None or number is None:
        return ImageNames(by_folder)
    table = prepare.read_inputs[number]
    place = table.place(number)
    files = [file for file in order.listing.files if file.input_index == number]
    if spark_reads(table.path):
        files = copied(order.session(), remote_files(order.session(), table, place), number, place, order.staging)
    return ImageNames(by_folder, read_labels(files, source, prepare.split_column, place))


def _without_image(names: ImageNames, files: Iterable[str]) -> list[ImageRecord]:
    """The rows of a table of labels that are of no file."""
    if names.table is None:
        return []
    matched = {names.key(file) for file in files}
    return [refused(Found(row.source, row.position, row.label, None, 0), "without_image", f"there is no file {name!r}")
            for name, row in names.table.items() if name not in matched]
