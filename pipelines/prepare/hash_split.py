"""The split of a record, by a hash of its content: adding records moves none.

Runs on: executors.
Takes:   the fractions of validation and test.
Gives:   ``HashSplit``.
"""

from __future__ import annotations


class HashSplit:
    """The lowest hashes are validation, the next are test, all others train."""

    def __init__(self, validation_fraction: float, test_fraction: float) -> None:
        self._validation_below = round(validation_fraction * 2**64)
        self._test_below = round((validation_fraction + test_fraction) * 2**64)

    def of(self, key: bytes) -> str:
        """
        Args:
            key: a hash of the content, evenly distributed; at least 8 bytes.
        """
        number = int.from_bytes(key[:8], "big")
        return "validation" if number < self._validation_below else "test" if number < self._test_below else "train"
