"""Which names in folders, globs and stores of objects are no input.

Runs on: driver.
Takes:   the name of a file or folder, without what is above it.
Gives:   ``is_hidden``; ``is_left_out``, of an input.
"""

from __future__ import annotations

from fnmatch import fnmatch

from pipelines.config.datasets import InputPath


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out: a leading dot or underscore.

    Source: Apache Spark, HadoopFSUtils.shouldFilterOutPathName (``_date=2026-01-01`` is a partition).
    """
    return name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_")


def is_left_out(name: str, source: InputPath) -> bool:
    """Whether a file or folder in the input's folder is hidden, or excluded by the recipe."""
    return is_hidden(name) or any(fnmatch(name, excluded) for excluded in source.exclude)
