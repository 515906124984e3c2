"""What is read of one image becomes a record, or the reason why it is refused; records become rows of ``images``.

Runs on: executors.
Takes:   the bytes or values of an image, its label and its split as they were found.
Gives:   ``ImageRecords``; ``image_batches``: Arrow batches of ``IMAGE_DDL``, bounded in bytes and rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipelines.prepare.images.decoding import (
    ImageRule,
    MixedImagesError,
    RefusedImageError,
    decoded,
    file_of,
    fitted,
    image_of,
    pixels_of,
)
from pipelines.prepare.images.image_values import JPEG, UnknownCodecError, image_in

REASONS = ("empty", "undecodable", "oversized", "wrong_size", "unlabelled", "unknown_label", "unknown_split", "duplicate",
           "contradiction", "without_image")
FAULT = "fault"  # a row that stops the job: its detail is place, problem and remedy as JSON
BATCH_BYTES, BATCH_ROWS = 8 * 1024**2, 4096

IMAGE_DDL = ("key BINARY, source STRING, position BIGINT, image BINARY, label INT, split STRING, reason STRING, detail STRING, "
             "bytes BIGINT, sums ARRAY<BIGINT>")
IMAGE_SCHEMA = pa.schema([("key", pa.binary()), ("source", pa.string()), ("position", pa.int64()), ("image", pa.binary()),
                          ("label", pa.int32()), ("split", pa.string()), ("reason", pa.string()), ("detail", pa.string()),
                          ("bytes", pa.int64()), ("sums", pa.list_(pa.int64()))])


class ImageRecord(NamedTuple):
    """A row of ``images``: with pixels, label and key, or with the reason why it is refused."""

    key: bytes  # SHA-256 of the pixels; of the place where there are none
    source: str
    position: int  # the row in a file of several images, else 0
    image: bytes | None  # values, channel after channel; or an image file of them
    label: int | None
    split: str | None  # as the input says; None: it says nothing
    reason: str | None
    detail: str | None
    bytes: int
    sums: list[int] | None = None  # of an image file: of each channel's values, then of their squares


@dataclass(frozen=True)
class Found:
    """Where an image is, and what its input says of it."""

    source: str
    position: int
    label: str | None
    split: str | None
    bytes: int


def refused(found: Found, reason: str, detail: str) -> ImageRecord:
    place = hashlib.sha256(f"{found.source}\0{found.position}".encode()).digest()
    return ImageRecord(place, found.source, found.position, None, None, found.split, reason, detail, found.bytes)


def fault(place: str, problem: str, remedy: str) -> ImageRecord:
    """The row that stops prepare with a ``DataError``."""
    return refused(Found("", 0, None, None, 0), FAULT, json.dumps([place, problem, remedy]))


@dataclass(frozen=True)
class ImageRecords:
    """Makes records by the recipe's rules."""

    rule: ImageRule
    labels: Mapping[str, int]  # of each class, by its name
    max_bytes: int
    as_files: bool  # an image file is kept, not its values

    def refusal(self, found: Found) -> ImageRecord | None:
        """What can be refused without a look at the image."""
        if found.bytes == 0:
            return refused(found, "empty", "no bytes")
        if found.label is None:
            return refused(found, "unlabelled", "has no label")
        if found.label not in self.labels:
            return refused(found, "unknown_label", f"{found.label!r} is none of the classes")
        if found.bytes > self.max_bytes:
            return refused(found, "oversized", f"above prepare.max_image_bytes ({self.max_bytes})")
        return None

    def of_file(self, found: Found, content: bytes) -> ImageRecord:
        """Of an image file's content; ``refusal`` has found nothing.

        Raises:
            MixedImagesError: see ``decoding.fitted``.
        """
        try:
            return self.of_image(found, decoded(content, self.rule.max_pixels), content)
        except RefusedImageError as error:
            return refused(found, error.reason, error.detail)

    def of_value(self, found: Found, value: Any, *, strict: bool) -> ImageRecord:
        """Of a value in a table.

        Raises:
            UnknownCodecError: ``strict``, and it is of no format that is read.
        """
        refusal = self.refusal(found)
        if refusal is not None:
            return refusal
        try:
            image = image_in(value, self.rule.max_pixels)
        except RefusedImageError as error:
            return refused(found, error.reason, error.detail)
        except UnknownCodecError as error:
            if strict:
                raise
            return refused(found, "undecodable", str(error))
        return self.of_image(found, image, value if isinstance(value, bytes) else b"")

    def of_values(self, found: Found, values_HWC: NDArray[np.uint8]) -> ImageRecord:
        """Of an array of 1, 3 or 4 channels."""
        return self.of_image(found, image_of(values_HWC))

    def of_image(self, found: Found, image: Image.Image, content: bytes = b"") -> ImageRecord:
        """
        Args:
            content: the file that the image was decoded from.
        """
        try:
            whole = fitted(image, self.rule)
            return self._of_file_as_kept(found, whole, content) if self.as_files else self.of_pixels(found, pixels_of(whole))
        except RefusedImageError as error:
            return refused(found, error.reason, error.detail)
        except MixedImagesError as error:
            row = f" in row {found.position}" if found.position else ""
            raise MixedImagesError(f"{found.source}{row} {error.problem}", error.remedy) from None

    def _of_file_as_kept(self, found: Found, image: Image.Image, content: bytes) -> ImageRecord:
        """The file as it is where the image was not changed, else one of the changed image."""
        if image.format is None or not content:  # Pillow gives a format to what is as it was read
            content = file_of(image, lossy=content.startswith(JPEG))
            image = decoded(content, self.rule.max_pixels)
        pixels = pixels_of(image)
        values_CP = np.frombuffer(pixels, np.uint8).reshape(self.rule.shape.channels, -1).astype(np.int64)
        return self.of_pixels(found, pixels)._replace(image=content, sums=[*values_CP.sum(1).tolist(),
                                                                           *(values_CP ** 2).sum(1).tolist()])

    def of_pixels(self, found: Found, pixels: bytes) -> ImageRecord:
        """Of values that are as the rule wants them; not for image files."""
        return ImageRecord(hashlib.sha256(pixels).digest(), found.source, found.position, pixels,
                           self.labels[found.label or ""], found.split, None, None, found.bytes)


def image_batches(records: Iterator[ImageRecord]) -> Iterator[pa.RecordBatch]:
    waiting: list[ImageRecord] = []
    waiting_bytes = 0
    for record in records:
        waiting.append(record)
        waiting_bytes += len(record.image or b"")
        if waiting_bytes >= BATCH_BYTES or len(waiting) >= BATCH_ROWS:
            yield _batch(waiting)
            waiting, waiting_bytes = [], 0
    if waiting:
        yield _batch(waiting)


def _batch(records: list[ImageRecord]) -> pa.RecordBatch:
    columns = zip(*records, strict=True)
    return pa.RecordBatch.from_arrays(
        [pa.array(values, type=field.type) for values, field in zip(columns, IMAGE_SCHEMA, strict=True)], schema=IMAGE_SCHEMA)
