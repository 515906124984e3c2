"""README's fenced blocks, for the tests that run them; ``tests/test_readme.py`` finds those that none does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """One fenced block: the heading that it is under, its index there, the language it names ("" for none) and its text."""

    heading: str
    index: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The block's shell commands: continued lines joined, comments dropped."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [" ".join(line.partition(" # ")[0].split()) for line in lines if line.strip()]


def blocks() -> Iterator[Block]:
    heading, index = "", 0
    for title, language, text in re.findall(r"^#+ ([^\n]+)$|^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        if title:
            heading, index = title, 0
        else:
            yield Block(heading, index, language, text)
            index += 1


def block(heading: str, index: int = 0) -> Block:
    """The block that a test is about to run."""
    return next(each for each in blocks() if (each.heading, each.index) == (heading, index))
