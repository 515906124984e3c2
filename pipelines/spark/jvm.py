"""What makes Spark's Java process start quickly.

Runs on: driver.
Takes:   the archive of Spark's classes that ``setup/class_archive.py`` makes, where it is there.
Gives:   ``quick_start``: a Java process that is started meanwhile takes a third of the CPU until its first query is done.

A job's driver process lives for minutes and does little itself: compiling its code thoroughly (C2) costs more than it gains,
and reading, checking and linking 15,000 classes anew costs more than mapping a file that holds them ready. An archive that
does not fit (another Java, other jars, another class path) is ignored by Java. What the user gives in ``spark.conf``,
``spark-defaults.conf`` or ``SPARK_SUBMIT_OPTS`` comes later on Java's command line and wins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLASS_ARCHIVE = Path(sys.prefix) / "share" / "sparkring" / "spark-classes.jsa"
OPTIONS_VARIABLE = "SPARK_SUBMIT_OPTS"  # spark-submit adds its words to the driver's Java options


@contextmanager
def quick_start(archive: Path = CLASS_ARCHIVE, temporary: Path | None = None) -> Iterator[None]:
    """Java processes that spark-submit starts in the block have the options of ``options``; ``temporary`` is where they put
    their temporary files."""
    given = os.environ.get(OPTIONS_VARIABLE)
    place = [] if temporary is None else [f'"-Djava.io.tmpdir={temporary}"']
    os.environ[OPTIONS_VARIABLE] = " ".join([*options(archive), *place, *([given] if given else [])])
    try:
        yield
    finally:
        if given is None:
            del os.environ[OPTIONS_VARIABLE]
        else:
            os.environ[OPTIONS_VARIABLE] = given


def options(archive: Path) -> list[str]:
    """Java options, quoted as spark-submit's scripts unquote them."""
    quick = ["-XX:TieredStopAtLevel=1"]
    return [*quick, f'"-XX:SharedArchiveFile={archive}"'] if archive.exists() else quick
