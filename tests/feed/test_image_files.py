"""Image files of a shard become values; a file that is no image of the column is told."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.feed.image_files import ImageFileError, decoded_column
from pipelines.lake.task_facts import IMAGE_FILE, Column

RANDOM = np.random.default_rng(0)


def file_of(values, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(values).save(file, form, **({"lossless": True} if form == "WEBP" else {}))
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_values_are_channel_after_channel(channels):
    given = RANDOM.integers(0, 256, (4, 5, 6, channels), dtype=np.uint8)
    forms = ["PNG"] * 4 if channels == 1 else ["PNG", "WEBP", "PNG", "WEBP"]
    files = [file_of(values[:, :, 0] if channels == 1 else values, form) for values, form in zip(given, forms, strict=True)]
    column = Column("image", "uint8", (channels, 5, 6), encoding=IMAGE_FILE)
    assert (decoded_column(column, pa.array(files)) == given.transpose(0, 3, 1, 2)).all()
    assert (decoded_column(column, pa.array([b"", *files]).slice(1)) == given.transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize(("file", "message"), [
    (b"", "row 1 cannot be decoded"), (b"no image", "row 1 cannot be decoded"),
    (file_of(np.zeros((5, 6, 3), np.uint8))[:-30], "row 1 cannot be decoded"),
    (file_of(np.zeros((5, 6), np.uint8)), "row 1 is L of 5 x 6, not RGB of 5 x 6"),
    (file_of(np.zeros((6, 5, 3), np.uint8)), "row 1 is RGB of 6 x 5, not RGB of 5 x 6")])
def test_a_file_that_is_no_image_of_the_column_is_told(file, message):
    good = file_of(np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(ImageFileError, match=message):
        decoded_column(Column("image", "uint8", (3, 5, 6), encoding=IMAGE_FILE), pa.array([good, file]))
