"""Fixtures that several packages' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from pipelines.config import Platform
from pipelines.session import spark_session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One local session for the whole suite; missing Java fails the tests, it does not skip them."""
    platform = Platform.model_validate({"spark": {
        "master": "local[2]", "conf": {"spark.sql.shuffle.partitions": 2, "spark.default.parallelism": 2}}})
    with spark_session(platform, "sparkring-tests") as session:
        yield session
