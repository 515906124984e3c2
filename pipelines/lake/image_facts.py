"""What an image is, for everyone who reads or writes one.

Runs on: driver, executors and ranks (no third-party import).
Takes:   nothing.
Gives:   the formats of image files, what decoding one may raise, the range of a pixel's values.
"""

from __future__ import annotations

import struct
import zlib

FORMATS = ("PNG", "JPEG", "WEBP")  # as Pillow names them; no other is opened
# what Pillow's decoders raise on bytes that are no image, or part of one
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError, IndexError, KeyError,
                 TypeError)
PIXEL_RANGE = 255  # a pixel of 255 is 1.0: mean and deviation are of pixels divided by it
