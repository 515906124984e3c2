"""Compressed files (gzip, bzip2, Zstandard) as the bytes in them, in bounded memory.

Runs on: executors and driver.
Takes:   an open file, or its first bytes: what a file holds decides, not how it is called.
Gives:   a stream of its content; ``OSError`` where the archive is cut off or damaged, ``ArchiveBombError`` where it
         grows beyond all reason.
"""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa

HEAD_BYTES = 10
# No text begins with these: the first two are not UTF-8, the third is a rare word of ten characters.
_MAGIC = ((b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")  # the first block, or the end of an empty file
# Source: the limit of Apache POI's ZipSecureFile (a ratio of 100). Text is 3 to 10 times as long as its archive.
MAX_RATIO = 100
SMALL_BYTES = 64 * 1024**2  # content that may come out of any archive
ENDINGS = (".gz", ".bz2", ".zst")
USUAL_RATIO = 4  # only for planning: how much longer the content is likely to be


class ArchiveBombError(OSError):
    """Decompressing was stopped."""


def codec_of(head: bytes) -> str | None:
    """The codec of a file that begins with ``head`` (``HEAD_BYTES``), or None where it is not compressed."""
    if head[:3] == b"BZh" and head[4:10] in _BZIP2_BLOCKS:
        return "bz2"
    return next((codec for magic, codec in _MAGIC if head.startswith(magic)), None)


def codec_of_file(file: BinaryIO) -> str | None:
    """The codec of an open file, which is at its beginning again afterwards."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return codec_of(head)


class Decompressed:
    """The content of an open compressed file; concatenated archives are read one after the other."""

    def __init__(self, file: BinaryIO, codec: str, size_bytes: int) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), codec)
        self._limit = max(SMALL_BYTES, MAX_RATIO * size_bytes)
        self._read_bytes = 0

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer at the end.

        Raises:
            OSError: cut off or damaged.
            ArchiveBombError: more than ``MAX_RATIO`` times the archive's own size, and than ``SMALL_BYTES``.
        """
        content: bytes = self._stream.read(size)
        self._read_bytes += len(content)
        if self._read_bytes > self._limit:
            raise ArchiveBombError(f"its content is more than {MAX_RATIO} times as long as the archive; "
                                   "where that is meant, decompress it before")
        return content
