"""IDX files, the format of the original MNIST: a header, then the values of an array.

Runs on: driver (headers, labels), executors (images).
Takes:   an open file, compressed with gzip (or bzip2, Zstandard) or not; its content says so.
Gives:   ``IdxHeader``; ``idx_labels``, ``idx_images``.

    bytes 0-1   0
    byte  2     the type of a value: 8 is uint8, the only one read
    byte  3     how many dimensions: 1 for labels [N]; 3 for images [N, H, W]; 4 for [N, H, W, C] or [N, C, H, W]
    then        each dimension as 4 bytes, the highest first, and the values

Source: Y. LeCun, C. Cortes, "The MNIST database", section "File formats".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.prepare.compressed import Decompressed, codec_of_file
from pipelines.prepare.images.decoding import CHANNELS, ImageShape

UINT8 = 0x08
TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
MAGIC_BYTES = 4
READ_BYTES = 1024**2  # at once: a header may say anything


class IdxError(Exception):
    """A file is not what its header says, or its header says what is not read."""


class IdxHeader(NamedTuple):
    shape: tuple[int, ...]

    @property
    def header_bytes(self) -> int:
        return MAGIC_BYTES + 4 * len(self.shape)

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def holds_labels(self) -> bool:
        return len(self.shape) == 1

    @property
    def channels_last(self) -> bool:
        return len(self.shape) == 4 and self.shape[3] in CHANNELS

    @property
    def image_shape(self) -> ImageShape:
        """Of the images as they are stored."""
        height, width, channels = (*self.shape[1:], 1)[:3] if len(self.shape) == 3 or self.channels_last else (
            self.shape[2], self.shape[3], self.shape[1])
        return ImageShape(channels, height, width)

    def values_of(self, row: bytes) -> NDArray[np.uint8]:
        """One image."""
        values = np.frombuffer(row, np.uint8)
        channels, height, width = self.image_shape
        if len(self.shape) == 3 or self.channels_last:
            return values.reshape(height, width, channels)
        return np.ascontiguousarray(values.reshape(channels, height, width).transpose(1, 2, 0))


class ByteSource(Protocol):
    def read(self, size: int) -> bytes: ...


def is_idx(head: bytes) -> bool:
    """Whether content begins as an IDX file does."""
    return len(head) >= MAGIC_BYTES and head[:2] == b"\0\0" and head[2] in TYPES and 1 <= head[3] <= 4


def idx_content(file: BinaryIO, size_bytes: int) -> ByteSource:
    """The content of an open file, decompressed where it is compressed."""
    codec = codec_of_file(file)
    return file if codec is None else Decompressed(file, codec, size_bytes)


def read_header(content: ByteSource) -> IdxHeader:
    """
    Raises:
        IdxError: it is none of images or labels in uint8.
    """
    magic = content.read(MAGIC_BYTES)
    if not is_idx(magic):
        raise IdxError(f"is not an IDX file: it begins with {magic.hex(' ') or 'nothing'}")
    if magic[2] != UINT8:
        raise IdxError(f"holds values of {TYPES[magic[2]]}; only uint8 is read")
    dimensions = content.read(4 * magic[3])
    if len(dimensions) < 4 * magic[3]:
        raise IdxError("ends within its header")
    header = IdxHeader(struct.unpack(f">{magic[3]}I", dimensions))
    if len(header.shape) == 2 or 0 in header.shape[1:]:
        raise IdxError(f"holds an array of {header.shape}: neither labels nor images")
    if len(header.shape) == 4 and not header.channels_last and header.shape[1] not in CHANNELS:
        raise IdxError(f"holds an array of {header.shape}: neither the last nor the second dimension is 1, 3 or 4 channels")
    return header


def idx_labels(content: ByteSource) -> list[int]:
    """All labels of a file.

    Raises:
        IdxError: see ``read_header``; there are more or fewer than it says.
    """
    header = read_header(content)
    if not header.holds_labels:
        raise IdxError("holds images, not labels")
    values = bytearray()
    while len(values) < header.rows and (read := content.read(min(READ_BYTES, header.rows - len(values)))):
        values += read
    _check_length(len(values), header, content)
    return list(values)


def idx_images(content: ByteSource, header: IdxHeader, first: int, rows: int) -> Iterator[bytes]:
    """The images from row ``first`` on, of content that stands there; the file's end is checked behind its last row.

    Raises:
        IdxError: there are more or fewer than the header says.
    """
    for row in range(first, first + rows):
        values = content.read(header.row_bytes)
        if len(values) < header.row_bytes:
            raise IdxError(f"ends within row {row}; its header says {header.rows:,} rows")
        yield values
    if first + rows == header.rows:
        _check_length(header.rows, header, content)


def _check_length(rows: int, header: IdxHeader, content: ByteSource) -> None:
    if rows < header.rows:
        raise IdxError(f"holds {rows:,} rows; its header says {header.rows:,}")
    if content.read(1):
        raise IdxError(f"holds more than the {header.rows:,} rows that its header says")
