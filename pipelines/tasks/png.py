"""Pixels as a PNG file, small enough for a page.

Runs on: ranks.
Takes:   uint8 [C, H, W] of one channel (grey), three (red, green, blue) or four (and how opaque).
Gives:   ``png_base64``.

Source: the PNG specification (W3C); the filter of each line is "up": the difference from the line above.
"""

from __future__ import annotations

import base64
import struct
import zlib

import torch
from torch import Tensor
from torch.nn import functional

MOST_SIDE = 72  # pixels; larger pictures are made smaller
UP = 2  # the filter
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


def png_base64(image_CHW: Tensor) -> str:
    """Of any other number of channels, the first is shown."""
    if image_CHW.shape[0] not in _COLOUR_TYPES:
        image_CHW = image_CHW[:1]
    height, width = image_CHW.shape[1:]
    scale = MOST_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        image_CHW = functional.interpolate(image_CHW[None].float(), size=size, mode="area")[0].round().to(torch.uint8)
        height, width = size
    lines_HB = image_CHW.permute(1, 2, 0).reshape(height, -1).cpu()
    lines_HB = torch.cat([lines_HB[:1], lines_HB[1:] - lines_HB[:-1]])  # of uint8, which wraps around as the filter does
    content = zlib.compress(functional.pad(lines_HB, (1, 0), value=UP).contiguous().numpy().tobytes(), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[image_CHW.shape[0]], 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", content), _chunk(b"IEND", b""))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
