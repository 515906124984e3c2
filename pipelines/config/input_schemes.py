"""Who reads an input at a URL: Python or Spark.

Runs on: driver.
Takes:   a path or URL, as a recipe gives it.
Gives:   ``python_reads``, by the URL's scheme alone, so that it is known before Spark starts and is the same everywhere.

Python lists and reads what its packages reach (``fsspec``: s3fs, gcsfs, adlfs, ...). Every other scheme is Spark's: ``hdfs``,
``viewfs``, ``s3a``, ``abfss``, ``wasbs``, whatever its Java side has a file system for. ``file:`` is a path.
"""

from __future__ import annotations

PYTHON_SCHEMES = frozenset({"s3", "gs", "gcs", "az", "abfs", "hf", "http", "https"})


def python_reads(path: str) -> bool:
    """Whether it is a URL of one of ``PYTHON_SCHEMES``."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme in PYTHON_SCHEMES
