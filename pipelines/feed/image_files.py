"""Image files in a shard, decoded to the values that a batch holds.

Runs on: ranks, in the thread that decodes row groups.
Takes:   a column of image files: PNG, JPEG or WebP, upright, of the column's channels and size, as prepare wrote them.
Gives:   ``decoded_column``: their values, channel after channel.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipelines.lake.image_facts import DECODE_ERRORS, FORMATS
from pipelines.lake.task_facts import Column

Image.MAX_IMAGE_PIXELS = None  # an image's size is compared with the column's before it is decoded


class ImageFileError(Exception):
    """A row's file is not what the column says."""


def decoded_column(column: Column, files: pa.Array) -> NDArray[Any]:
    """``[B, C, H, W]``.

    Raises:
        ImageFileError: a file is no image, or one of another size or number of channels.
    """
    channels, height, width = column.shape
    mode, values_BCHW = "L" if channels == 1 else "RGB", np.empty((len(files), *column.shape), np.uint8)
    for row, file in enumerate(files):
        try:
            image = Image.open(io.BytesIO(file.as_buffer()), formats=FORMATS)
            if (image.mode, image.height, image.width) != (mode, height, width):
                raise ImageFileError(f"row {row} is {image.mode} of {image.height} x {image.width}, not {mode} of {height} x "
                                     f"{width}")
            values = np.asarray(image)
        except DECODE_ERRORS as error:
            raise ImageFileError(f"row {row} cannot be decoded: {error}") from None
        values_BCHW[row] = values if channels == 1 else values.transpose(2, 0, 1)
    return values_BCHW
