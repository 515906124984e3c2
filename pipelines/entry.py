"""Where every command starts: first what happens on Ctrl-C, then the slow imports.

Runs on: driver.
Takes:   command-line arguments.
Gives:   an exit code (see ``cli.py``).
"""

from __future__ import annotations

from pipelines.interrupts import hold_interrupts


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; an interrupt that comes before it can begin ends it then."""
    hold_interrupts()
    from pipelines import cli
    return cli.main(arguments)
