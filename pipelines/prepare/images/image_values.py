"""Values of a table's column of images, recognised by their own first bytes.

Runs on: executors and driver.
Takes:   bytes of a PNG, JPEG or WebP file, of numpy's npy or npz (as petastorm's codecs write them); a Spark image; a struct
         with a field ``bytes``, as Hugging Face's datasets have it.
Gives:   ``image_in``: the image; ``UnknownCodecError`` where a value is none of these. ``fitted_pixels``: the pixels of these
         and of arrays of pixels, flat or nested, which prepare's tables do not hold.

Nothing is unpickled: arrays of objects are refused.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipelines.prepare.images.decoding import (
    CHANNELS,
    FoundShape,
    ImageRule,
    ImageShape,
    RefusedImageError,
    decoded,
    fitted,
    image_of,
    pixels_of,
    shape_of,
)

PNG, JPEG, WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"
NPY, NPZ = b"\x93NUMPY", b"PK\x03\x04"
NUMBERS = "iufb"  # kinds of numpy's types
SPARK_FIELDS = {"height", "width", "nChannels", "data"}  # Source: Apache Spark, ImageSchema: rows of BGR or BGRA


KNOWN_CODECS = "values of npy, npz, PNG, JPEG and WebP are read, and Spark's images"


class UnknownCodecError(Exception):
    """A value is of no format that is read."""


def value_shape(source: str, value: Any, max_pixels: int) -> FoundShape:
    try:
        return FoundShape(source, shape_of(image_in(value, max_pixels)), "")
    except RefusedImageError as error:
        return FoundShape(source, None, error.detail)
    except UnknownCodecError as error:
        return FoundShape(source, None, f"it holds {error}; {KNOWN_CODECS}")


def size_of(value: Any) -> int:
    """Bytes of a value."""
    if isinstance(value, dict):
        value = value.get("data") if value.keys() >= SPARK_FIELDS else value.get("bytes")
    return len(value) if isinstance(value, bytes) else 0


def size_in_form(value: Any) -> int | None:
    """Bytes of a value, pixels or rows of an array; None where it is of none of the forms that ``fitted_pixels`` takes."""
    if isinstance(value, list | np.ndarray):
        return len(value)
    is_image = isinstance(value, dict) and (value.keys() >= SPARK_FIELDS or "bytes" in value)
    return size_of(value) if is_image or isinstance(value, bytes) else None


def fitted_pixels(value: Any, rule: ImageRule) -> bytes:
    """Its values, channel after channel, once it is made as the rule says.

    Args:
        value: as ``image_in`` takes it; or an array of pixels.
    Raises:
        RefusedImageError, UnknownCodecError: it is no image, or one that is not taken.
    """
    is_array = isinstance(value, list | np.ndarray)
    image = image_of_pixels(value, rule.shape) if is_array else image_in(value, rule.max_pixels)
    return pixels_of(fitted(image, rule))


def image_in(value: Any, max_pixels: int) -> Image.Image:
    """
    Raises:
        RefusedImageError: it is damaged, or has too many pixels. UnknownCodecError: it is none.
    """
    if isinstance(value, dict) and value.keys() >= SPARK_FIELDS:
        return _spark_image(value, max_pixels)
    if isinstance(value, dict):
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise UnknownCodecError(f"a {type(value).__name__}")
    if value.startswith((PNG, JPEG)) or (value.startswith(WEBP) and value[8:12] == b"WEBP"):
        return decoded(value, max_pixels)
    if value.startswith(NPY):
        return image_of(_channels_last(_array(io.BytesIO(value), max_pixels)))
    if value.startswith(NPZ):
        return image_of(_channels_last(_only_array(value, max_pixels)))
    raise UnknownCodecError(f"bytes that begin with {value[:8].hex(' ')}")


def numbers_of(column: pa.Array) -> list[Any]:
    """The values of a column; flat arrays of numbers as numpy has them."""
    if pa.types.is_list(column.type) and not pa.types.is_nested(column.type.value_type):
        lengths = column.value_lengths()
        if len(column) and column.null_count == 0 and lengths == pa.array([lengths[0].as_py()] * len(column), lengths.type):
            return list(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1))
        return [scalar.values.to_numpy(zero_copy_only=False) if scalar.is_valid else None for scalar in column]
    return list(column.to_pylist())


def stacked_pixels(values: Sequence[Any], shape: ImageShape) -> NDArray[np.uint8] | None:
    """What ``fitted_pixels`` makes of flat arrays of pixels, [rows, values], much faster; None where not all are such."""
    if not values or any(not isinstance(each, np.ndarray) or each.shape != (shape.values,) for each in values):
        return None
    found = np.stack(values)
    if found.dtype.kind not in NUMBERS:
        return None
    with np.errstate(invalid="ignore"):  # what is no pixel is seen below
        pixels = found.astype(np.uint8)
    return pixels if np.array_equal(found, pixels) else None


def image_of_pixels(values: Any, shape: ImageShape) -> Image.Image:
    """Of whole numbers from 0 to 255, as floats too.

    Args:
        values: nested, as [H, W], [H, W, C] or [C, H, W]; or flat, channel after channel as a shard has them.
        shape: of flat values.
    Raises:
        RefusedImageError: "malformed" for other numbers or nesting, "wrong_size" for another number of flat values.
    """
    try:
        pixels = _nested(values)
        if pixels.dtype.kind not in NUMBERS or not np.array_equal(pixels, pixels.astype(np.uint8)):
            raise RefusedImageError("malformed", "values are not whole numbers from 0 to 255")
        pixels = pixels.astype(np.uint8)
        if pixels.ndim > 1:
            return image_of(_channels_last(pixels))
    except (ValueError, UnknownCodecError) as error:
        raise RefusedImageError("malformed", str(error)) from None
    if len(pixels) != shape.values:
        raise RefusedImageError("wrong_size", f"{len(pixels)} values, not {shape.channels} x {shape.height} x {shape.width}")
    return image_of(np.ascontiguousarray(pixels.reshape(shape).transpose(1, 2, 0)))


def _nested(values: Any) -> NDArray[Any]:
    """Raises ValueError where rows have different lengths."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values
    if isinstance(values, np.ndarray | list) and len(values) and isinstance(values[0], np.ndarray | list):
        return np.stack([_nested(each) for each in values])
    return np.asarray(values)


def _array(file: Any, max_pixels: int) -> NDArray[Any]:
    """A npy file whose header says no more than may be."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        if dtype.hasobject:
            raise UnknownCodecError("an array of objects")
        if dtype not in (np.uint8, np.uint16):
            raise UnknownCodecError(f"an array of {dtype}; uint8 and uint16 are read")
        if math.prod(shape) > max_pixels * max(CHANNELS):
            raise RefusedImageError("oversized", f"{shape} values are above prepare.max_image_pixels ({max_pixels:,})")
        content = file.read(math.prod(shape) * dtype.itemsize)
        values = np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")
    except (ValueError, EOFError, SyntaxError, OSError, zlib.error, zipfile.BadZipFile) as error:
        raise RefusedImageError("undecodable", " ".join(str(error).split())[:200]) from None
    return (values >> 8).astype(np.uint8) if dtype == np.uint16 else values


def _only_array(value: bytes, max_pixels: int) -> NDArray[Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(value)) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise UnknownCodecError(f"an archive of {len(names)} arrays")
            with archive.open(names[0]) as file:
                return _array(file, max_pixels)
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, RuntimeError) as error:
        raise RefusedImageError("undecodable", " ".join(str(error).split())[:200]) from None


def _channels_last(values: NDArray[Any]) -> NDArray[np.uint8]:
    """[H, W], [H, W, C] or [C, H, W] as [H, W, C]."""
    if values.ndim == 2:
        values = values[:, :, None]
    elif values.ndim == 3 and values.shape[2] not in CHANNELS and values.shape[0] in CHANNELS:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] not in CHANNELS or 0 in values.shape:
        raise UnknownCodecError(f"an array of {values.shape}; [H, W], [H, W, C] and [C, H, W] of 1, 3 or 4 channels are read")
    return np.ascontiguousarray(values)


def _spark_image(value: dict[str, Any], max_pixels: int) -> Image.Image:
    height, width, channels, data = value["height"] or 0, value["width"] or 0, value["nChannels"], value["data"]
    if not isinstance(data, bytes) or channels not in CHANNELS or len(data) != height * width * channels or not data:
        raise RefusedImageError("undecodable", f"a Spark image of {height} x {width} x {channels} with {size_of(value)} bytes")
    if height * width > max_pixels:
        raise RefusedImageError("oversized", f"{width:,} x {height:,} pixels are above prepare.max_image_pixels ({max_pixels:,})")
    values = np.frombuffer(data, np.uint8).reshape(height, width, channels)
    return image_of(np.ascontiguousarray(values[:, :, [2, 1, 0, 3][:channels]] if channels > 1 else values))
