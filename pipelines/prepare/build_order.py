"""What is to be built: all that the code of one kind of data is told.

Runs on: driver.
Takes:   the recipe, the listed inputs, where the version is made.
Gives:   ``BuildOrder``, ``Identity``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pyspark.sql import SparkSession

from pipelines.config.recipe import Recipe
from pipelines.lake.paths import Lake
from pipelines.lake.staging import Staging
from pipelines.prepare.remote import Listing


class Identity(NamedTuple):
    """What the dataset is called, and why."""

    version: str
    fingerprint: str
    recipe_hash: str


@dataclass(frozen=True)
class BuildOrder:
    """One dataset version, to be made in ``staging``."""

    session: Callable[[], SparkSession]  # asked when Spark is needed, which may still be starting
    recipe: Recipe
    lake: Lake
    listing: Listing
    identity: Identity
    staging: Staging
    report: Callable[[str], None]
