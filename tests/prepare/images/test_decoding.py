"""Bytes become pixels by stated rules, or are refused with a reason; whatever they are, nothing else happens."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.prepare.images.decoding import (
    FORMATS,
    ORIENTATION,
    ImageRule,
    ImageShape,
    MixedImagesError,
    RefusedImageError,
    decoded,
    fitted,
    pixels_of,
    shape_of,
)
from tests.prepare.images.conftest import channels_first, encoded, picture

LIMIT = 10_000


def values(content: bytes) -> np.ndarray:
    return np.asarray(decoded(content, LIMIT))


def reason(content: bytes) -> str:
    with pytest.raises(RefusedImageError) as caught:
        decoded(content, LIMIT)
    return caught.value.reason


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_pixels_are_channel_after_channel(shape):
    given = picture(0, *shape)
    assert pixels_of(decoded(encoded(given), LIMIT)) == channels_first(given)


def test_transparency_is_over_white():
    given = np.zeros((1, 3, 4), np.uint8)
    given[0, :, 3] = 0, 128, 255
    assert values(encoded(given)).tolist() == [[[255] * 3, [127] * 3, [0] * 3]]
    gray = Image.merge("LA", [Image.new("L", (1, 1), 0), Image.new("L", (1, 1), 0)])
    assert values(encoded(gray)).tolist() == [[255]]
    keyed = encoded(np.array([[7, 8]], np.uint8), transparency=7)
    assert values(keyed).tolist() == [[255, 8]]


def test_a_palette_is_its_colours():
    given = picture(1, 4, 4, 3) // 64 * 64
    assert (values(encoded(Image.fromarray(given).quantize(64))) == given).all()


def test_of_16_bits_the_upper_8_are_taken():
    given = np.array([[0, 255, 256, 65535]], np.uint16)
    assert values(encoded(given)).tolist() == [[0, 0, 1, 255]]
    assert values(_png(2, 16, np.array([[[0, 256, 65535]]], ">u2"))).tolist() == [[[0, 1, 255]]]


def _png(colour: int, depth: int, rows: np.ndarray) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], depth, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
            + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))) + chunk(b"IEND", b""))


def test_cmyk_is_colour_and_one_bit_is_gray():
    assert values(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))[0, 0].argmax() == 0
    assert values(encoded(Image.new("1", (2, 1), 1))).tolist() == [[255, 255]]


@pytest.mark.parametrize("form", FORMATS)
def test_an_image_is_turned_as_its_orientation_says(form):
    given = Image.new("RGB", (16, 8), "black")
    given.paste("white", (0, 0, 8, 8))  # the left half
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned clockwise: left becomes top
    found = np.asarray(decoded(encoded(given, form, exif=exif, quality=100), LIMIT))
    assert found.shape == (16, 8, 3) and found[:8].min() > 200 and found[8:].max() < 50


def test_of_several_frames_the_first_is_taken():
    frames = [Image.fromarray(picture(number, 8, 8, 3)) for number in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert (values(file.getvalue()) == np.asarray(frames[0])).all()


@pytest.mark.parametrize(("resize", "expected"), [
    ("crop", [[10, 20], [10, 20]]), ("pad", [[5, 25], [0, 0]]), ("stretch", [[5, 25], [5, 25]])])
def test_another_size_is_fitted_by_the_rule(resize, expected):
    image = Image.fromarray(np.array([[0, 10, 20, 30]] * 2, np.uint8))
    rule = ImageRule(ImageShape(1, 2, 2), True, True, resize, LIMIT, "")
    found = np.asarray(fitted(image, rule))
    assert found.shape == (2, 2)
    assert abs(found.astype(int) - expected).max() <= 2


def test_without_a_rule_another_image_is_told():
    rule = ImageRule(ImageShape(1, 2, 2), False, False, "crop", LIMIT, "a.png")
    with pytest.raises(MixedImagesError, match="has 3 channels where a.png has 1"):
        fitted(Image.new("RGB", (2, 2)), rule)
    with pytest.raises(MixedImagesError, match="is 3 x 2 where a.png is 2 x 2"):
        fitted(Image.new("L", (2, 3)), rule)
    with pytest.raises(RefusedImageError, match="3 x 2, not 2 x 2"):
        fitted(Image.new("L", (2, 3)), rule._replace(size_given=True, resize="refuse"))


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_not_opened(form):
    assert reason(encoded(picture(0, 16, 16, 3), form)) == "undecodable"


@pytest.mark.parametrize("form", FORMATS)
def test_a_bomb_is_refused_before_it_is_decoded(form, monkeypatch):
    assert Image.MAX_IMAGE_PIXELS is None  # Pillow's own limit, which nobody set, does not stand in the way of the recipe's
    content = encoded(Image.new("RGB", (101, 100)), form)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    assert reason(content) == "oversized"


@pytest.mark.parametrize("form", FORMATS)
def test_any_damage_gives_pixels_or_a_reason(form):
    content = encoded(picture(3, 20, 20, 3), form)
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(400):
        broken = bytearray(content[: chance.choice([len(content), chance.randrange(len(content))])])
        for _ in range(chance.randrange(4)):
            if broken:
                broken[chance.randrange(len(broken))] = chance.randrange(256)
        try:
            assert shape_of(decoded(bytes(broken), LIMIT)).values > 0
        except RefusedImageError as error:
            assert error.reason in ("undecodable", "oversized") and error.detail


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_image_is_refused(form):
    content = encoded(picture(4, 30, 30, 3), form)
    assert {reason(content[:length]) for length in range(0, len(content) * 3 // 4, 97)} == {"undecodable"}
