"""IDX files of one input as pieces: images paired with their labels.

Runs on: driver.
Takes:   the listed files of an input.
Gives:   ``idx_pieces``.

A file of labels belongs to the file of images that has its name but for ``images`` and ``labels`` (``train-images-idx3-ubyte``
and ``train-labels-idx1-ubyte.gz``); where an input has one of each, they belong together whatever their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipelines.errors import DataError
from pipelines.prepare.compressed import codec_of_file
from pipelines.prepare.images.idx_files import IdxError, IdxHeader, idx_content, idx_labels, read_header
from pipelines.prepare.images.image_names import ImageNames
from pipelines.prepare.images.image_piece import ImagePiece
from pipelines.prepare.input_files import InputFile, as_listed, opened_input, path_text

PIECE_BYTES = 8 * 1024**2


def idx_pieces(files: Sequence[InputFile], names: ImageNames, max_pixels: int) -> Iterator[ImagePiece]:
    """
    Raises:
        DataError: a file is not what its header says; images have no labels, labels no images, or not as many.
    """
    headers = {file: _header(file) for file in files}
    images = {_stem(file): file for file in files if not headers[file].holds_labels}
    labels = {_stem(file): file for file in files if headers[file].holds_labels}
    if len(images) == len(labels) == 1:
        labels = dict(zip(images, labels.values(), strict=True))
    for stem in sorted(images.keys() ^ labels.keys()):
        alone, missing = (images[stem], "labels") if stem in images else (labels[stem], "images")
        raise DataError(alone.place, f"{path_text(alone.path)} has no file of {missing} in this "
                        "input", f"give a folder or glob that has both, named alike but for images and labels ({missing} would "
                        "be an IDX file too)")
    for stem, file in images.items():
        found = _labels(labels[stem])
        if len(found) != headers[file].rows:
            raise DataError(file.place, f"{path_text(file.path)} holds {headers[file].rows:,} "
                            f"images, {path_text(labels[stem].path)} {len(found):,} labels", "give files that belong together")
        yield from _ranges(file, headers[file], found, names, max_pixels)


def _ranges(file: InputFile, header: IdxHeader, labels: list[int], names: ImageNames,
            max_pixels: int) -> Iterator[ImagePiece]:
    shape = header.image_shape
    if shape.height * shape.width > max_pixels:
        raise _fault(file, f"holds images of {shape.height:,} x {shape.width:,} pixels, above prepare.max_image_pixels")
    with as_listed(file), opened_input(file) as stream:
        compressed = codec_of_file(stream) is not None
    if not compressed and file.bytes != header.header_bytes + header.rows * header.row_bytes:
        raise _fault(file, f"has {file.bytes:,} bytes; its header says {header.rows:,} images of {header.row_bytes:,} bytes")
    rows = header.rows if compressed else max(1, PIECE_BYTES // header.row_bytes)  # an archive is read from its beginning
    for first in range(0, header.rows, rows):
        own = tuple(map(str, labels[first : first + rows]))
        yield ImagePiece(file, "idx", path_text(file.path), first, own, (names.of(file.name).split,), len(own) * header.row_bytes)


def _header(file: InputFile) -> IdxHeader:
    try:
        with as_listed(file), opened_input(file) as stream:
            return read_header(idx_content(stream, file.bytes))
    except IdxError as error:
        raise _fault(file, str(error)) from None


def _labels(file: InputFile) -> list[int]:
    try:
        with as_listed(file), opened_input(file) as stream:
            return idx_labels(idx_content(stream, file.bytes))
    except IdxError as error:
        raise _fault(file, str(error)) from None


def _fault(file: InputFile, problem: str) -> DataError:
    return DataError(file.place, f"{path_text(file.path)} {problem}",
                     "restore it, or leave it out with pattern or exclude")


def _stem(file: InputFile) -> str:
    return re.sub(r"images|labels|idx\d|\.(gz|bz2|zst)$", "", file.name)
