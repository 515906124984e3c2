"""A picture for the report, read by another program."""

import base64
import io

import pytest
import torch
from PIL import Image

from pipelines.tasks.png import MOST_SIDE, png_base64


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA"), (2, "L")])
def test_a_png_holds_the_pixels(channels, mode):
    pixels = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    image = Image.open(io.BytesIO(base64.b64decode(png_base64(pixels))))
    assert (image.mode, image.size) == (mode, (7, 5))
    shown = pixels if channels != 2 else pixels[:1]
    assert list(image.getdata()) == [tuple(p) if len(p) > 1 else p[0] for p in shown.permute(1, 2, 0).reshape(35, -1).tolist()]


def test_a_large_picture_is_made_small():
    image = Image.open(io.BytesIO(base64.b64decode(png_base64(torch.full((3, 400, 200), 77, dtype=torch.uint8)))))
    assert image.size == (MOST_SIDE // 2, MOST_SIDE) and set(image.getdata()) == {(77, 77, 77)}
