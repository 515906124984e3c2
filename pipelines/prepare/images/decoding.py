"""An image file's bytes become pixels, by stated rules.

Runs on: executors, driver (a first image), and Spark's Python workers that predict; ranks read encoded shards by
         ``feed/image_files.py``.
Takes:   the bytes of a PNG, JPEG or WebP file; no other format is opened.
Gives:   ``decoded``: the image upright, gray (``L``) or colour (``RGB``), 8 bits a channel; ``fitted``: of the wanted size;
         ``pixels_of``: its values, channel after channel.

The rules, in this order:

    several frames         the first one
    orientation in EXIF    applied
    palette                its colours
    16 bits a channel      the upper 8
    transparency           over white
    CMYK and other spaces  Pillow's conversion to RGB; embedded colour profiles are not applied
    channels: 1 of colour  luma, ITU-R 601-2 (Pillow's "L");  channels: 3 of gray   the same value in each
    another size           crop: scaled to cover, the middle taken; pad: scaled to fit, black around; stretch: scaled as it must
    scaling                bilinear, over all pixels that a new one covers
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipelines.lake.image_facts import DECODE_ERRORS, FORMATS

CHANNELS = (1, 3, 4)  # of values that are made an image: gray, colour, colour with transparency
LOOKED_AT = 8  # images of a table, or of an input at a URL, to find what size and how many channels all have
ORIENTATION = 0x0112
GRAY_MODES = ("1", "L", "LA", "La", "I", "F")
# Pillow would warn above a limit of its own and refuse above twice as much; here ``prepare.max_image_pixels`` is the limit
Image.MAX_IMAGE_PIXELS = None


class RefusedImageError(Exception):
    """An image is counted as rejected."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class MixedImagesError(Exception):
    """An image has another size or number of channels than the first one, and no setting says what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


class ImageShape(NamedTuple):
    channels: int
    height: int
    width: int

    @property
    def values(self) -> int:
        return self.channels * self.height * self.width


class FoundShape(NamedTuple):
    """Of one of the first images, or the reason why it has none."""

    source: str
    shape: ImageShape | None
    problem: str


def found_shape(source: str, content: bytes, max_pixels: int) -> FoundShape:
    try:
        return FoundShape(source, shape_of(decoded(content, max_pixels)), "")
    except RefusedImageError as error:
        return FoundShape(source, None, error.detail)


class ImageRule(NamedTuple):
    """What an image is made to be."""

    shape: ImageShape
    size_given: bool  # by the recipe; else all images have the first one's
    channels_given: bool
    resize: str
    max_pixels: int
    first: str  # the image that the shape is of, where the recipe does not say


def opened(content: bytes, max_pixels: int) -> Image.Image:
    """The image, of which only the head is read.

    Raises:
        RefusedImageError: it is none, or has too many pixels.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except DECODE_ERRORS as error:
        raise RefusedImageError("undecodable", _said(error)) from None
    if image.width * image.height > max_pixels:
        raise RefusedImageError("oversized", f"{image.width:,} x {image.height:,} pixels are above prepare.max_image_pixels "
                                f"({max_pixels:,})")
    return image


def decoded(content: bytes, max_pixels: int) -> Image.Image:
    """The image by the rules, in its own size; of mode ``L`` or ``RGB``.

    Raises:
        RefusedImageError: it is none, is cut short, or has too many pixels.
    """
    image = opened(content, max_pixels)
    try:
        image.load()
        if image.mode in ("L", "RGB") and "transparency" not in image.info and ORIENTATION not in image.getexif():
            return image
        return _plain(ImageOps.exif_transpose(image))
    except DECODE_ERRORS as error:
        raise RefusedImageError("undecodable", _said(error)) from None


def _plain(image: Image.Image) -> Image.Image:
    """Gray or colour, 8 bits, nothing transparent."""
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut off what is above 255
        values_HW = np.asarray(image)
        return Image.fromarray((np.clip(values_HW, 0, 2**16 - 1) >> 8).astype(np.uint8))
    gray = image.mode in GRAY_MODES
    if image.has_transparency_data:
        image = image.convert("RGBA")
        under = Image.new("RGBA", image.size, "white")
        under.alpha_composite(image)
        return under.convert("RGB").getchannel(0) if gray else under.convert("RGB")
    return image.convert("L" if gray else "RGB")


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def shape_of(image: Image.Image) -> ImageShape:
    return ImageShape(1 if image.mode == "L" else 3, image.height, image.width)


def fitted(image: Image.Image, rule: ImageRule) -> Image.Image:
    """The image with the rule's channels and size; ``image`` itself where it has them.

    Raises:
        RefusedImageError: it has another size, and those are refused.
        MixedImagesError: it is not like the first one, and no setting says what to do.
    """
    found = shape_of(image)
    if found == rule.shape:
        return image
    if found.channels != rule.shape.channels:
        if not rule.channels_given:
            raise MixedImagesError(f"has {found.channels} channels where {rule.first} has {rule.shape.channels}",
                                   "set prepare.channels to 1 (gray) or 3 (colour)")
        image = image.convert("L" if rule.shape.channels == 1 else "RGB")
    if found[1:] == rule.shape[1:]:
        return image
    if not rule.size_given:
        raise MixedImagesError(f"is {found.height} x {found.width} where {rule.first} is {rule.shape.height} x "
                               f"{rule.shape.width}", "set prepare.size to the height and width that all are to have")
    size = (rule.shape.width, rule.shape.height)
    if rule.resize == "refuse":
        raise RefusedImageError("wrong_size", f"{found.height} x {found.width}, not {rule.shape.height} x {rule.shape.width}")
    if rule.resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if rule.resize == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR)
    return image.resize(size, Image.Resampling.BILINEAR)


def image_of(values_HWC: NDArray[np.uint8]) -> Image.Image:
    """Values of 1, 3 or 4 channels as an image by the rules."""
    if values_HWC.shape[2] == 1:
        return Image.fromarray(values_HWC[:, :, 0])
    return _plain(Image.fromarray(values_HWC)) if values_HWC.shape[2] == 4 else Image.fromarray(values_HWC)


def file_of(image: Image.Image, *, lossy: bool) -> bytes:
    """An image file that decodes to the image: PNG; or nearly so, a JPEG of quality 95."""
    file = io.BytesIO()
    if lossy:
        image.save(file, "JPEG", quality=95, subsampling=0)
    else:
        image.save(file, "PNG", compress_level=6)
    return file.getvalue()


def pixels_of(image: Image.Image) -> bytes:
    """Its values, channel after channel."""
    if image.mode == "L":
        return image.tobytes()
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).tobytes()
