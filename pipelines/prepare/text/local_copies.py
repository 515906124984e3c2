"""Long files at URLs that Spark's text source cannot read as ours reads a local one: they are copied and read as local ones.

Runs on: driver; the copying is done by the session's JVM, which has the file systems.
Takes:   the long files of the inputs, the session, and where the version is made.
Gives:   ``Inputs`` in which those files are pieces of local files, under the names of their URLs.

Two kinds of file need it: compressed ones (Spark goes by the name and has no bounds, ours goes by the content), and those
in which Spark's source left out lines that are too long (``remote_documents.with_lost_lines``), which ours counts and refuses.
"""

from __future__ import annotations

import shutil
from typing import NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from pipelines.config.datasets import TextPrepare
from pipelines.errors import DataError, StorageError
from pipelines.lake.staging import Staging
from pipelines.lake.store import storage_errors
from pipelines.prepare.compressed import HEAD_BYTES, codec_of
from pipelines.prepare.input_files import local_file
from pipelines.prepare.remote import unreadable
from pipelines.prepare.text.local_documents import Piece, cut_into_pieces
from pipelines.prepare.text.remote_documents import LongFile
from pipelines.prepare.threads import in_threads
from pipelines.prepare.url_files import copy_file, java_classes, java_file_system, java_path

COPIES = "copies"  # a folder in staging


class Inputs(NamedTuple):
    """What is to be prepared."""

    pieces: list[Piece]  # of local files
    remote_bytes: int = 0  # of the files that are read from URLs
    long_files: tuple[LongFile, ...] = ()  # of these, the ones that Spark cuts into lines
    copied: frozenset[LongFile] = frozenset()  # files at URLs of which there are copies

    @property
    def bytes(self) -> int:
        return sum(piece.bytes for piece in self.pieces) + self.remote_bytes

    def with_copied(self, pieces: list[Piece], files: list[LongFile]) -> Inputs:
        """With ``pieces`` of the copies of ``files``."""
        return Inputs([*self.pieces, *pieces], self.remote_bytes - sum(file.bytes for file in files),
                      tuple(file for file in self.long_files if file not in files), self.copied | frozenset(files))


def compressed(spark: SparkSession, files: tuple[LongFile, ...]) -> list[LongFile]:
    """Those that are compressed, or that Spark would decompress because of their names.

    Raises:
        DataError: a file cannot be opened.
    """
    factory = java_classes(spark).org.apache.hadoop.io.compress.CompressionCodecFactory(
        spark._jsc.hadoopConfiguration())

    def is_compressed(file: LongFile) -> bool:
        path = java_path(spark, file.url)
        if factory.getCodec(path) is not None:
            return True
        try:
            stream = java_file_system(spark, path).open(path)
            try:
                return codec_of(bytes(stream.readNBytes(HEAD_BYTES))) is not None
            finally:
                stream.close()
        except Py4JJavaError as error:
            raise unreadable(file.place, file.url, error) from None

    return [file for file, found in zip(files, in_threads(is_compressed, files), strict=True) if found]


def with_copies(spark: SparkSession, inputs: Inputs, files: list[LongFile], prepare: TextPrepare, staging: Staging) -> Inputs:
    """The inputs, with copies of ``files`` in place of them.

    Raises:
        DataError: a file cannot be read, or is not as long as it was when it was listed.
        StorageError: there is no room for a copy.
    """
    folder = staging.shared_folder(COPIES, f"for a copy of {files[0].url}: it is compressed, or holds a record that is too long "
                                   "for Spark's reader")
    pieces = list[Piece]()
    for number, file in enumerate(files, len(inputs.copied)):
        copy = folder / f"{file.input_index}-{number}"
        with storage_errors(folder):
            free = shutil.disk_usage(folder).free
        if free < file.bytes:
            raise StorageError(str(folder), f"has {free:,} bytes free, too few for a copy of {file.url} ({file.bytes:,} "
                               "bytes; so long a file at a URL is copied where it is compressed or holds a record that is "
                               "too long)", "free space, set storage.root to another folder, or use smaller files")
        copy_file(spark, file.url, copy, file.place)
        status = copy.stat()
        if status.st_size != file.bytes:
            raise DataError(file.place, f"{file.url}: input changed while it was read",
                            "prepare again when nothing writes to the input")
        listed = local_file(file.input_index, str(copy), file.url, status)
        pieces += [piece._replace(source=file.url) for piece in cut_into_pieces([listed], prepare.inputs)]
    return inputs.with_copied(pieces, files)
