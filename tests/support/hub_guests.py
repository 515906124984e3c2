"""Guests of a hub that runs in the test's own process.

Runs on: the machine of the tests.
Takes:   nothing.
Gives:   where such a hub listens, and what its guests do when they take it for silent.
"""

from __future__ import annotations

from typing import NoReturn

LOOPBACK = "127.0.0.1"


def never() -> NoReturn:
    raise AssertionError("the hub was taken for silent")
