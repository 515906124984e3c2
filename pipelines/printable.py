"""Text from data, models and file names as a terminal or a page may be given it: what is not printable is spelled out.

Runs on: driver.
Takes:   any text.
Gives:   the same text with control characters, escape sequences, marks that reverse the direction of writing, and bytes
         that are not UTF-8 (as Python carries them: lone surrogates) written as ``\\x1b``, ``\\u202e``, ``\\xff``.

A terminal obeys what it is sent: an escape sequence in a document or a file name could move the cursor, change the
window's title or hide a line.
"""

from __future__ import annotations

import re

# C0 but tab and newline, DEL and C1; line separators and overrides of direction, which move other text; surrogates
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMES = {"\r": "\\r"}


def printable(text: str) -> str:
    """``text`` in which only tabs and newlines are left of what cannot be seen."""
    return _HIDDEN.sub(lambda found: _NAMES.get(found[0]) or _spelled(ord(found[0])), text)


def printable_json(text: str) -> str:
    """JSON that means the same and can be sent to a terminal."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _spelled(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte that is not UTF-8 (PEP 383)
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
