"""A dataset of images, whole: the flow of prepare for images, on one screen.

Runs on: driver (plans, collects bounded facts), executors (read, decode, shuffle, write).
Takes:   the listed inputs, and where the version is made.
Gives:   shards in it, and the manifest; the table ``rejected``.

One Spark job with one shuffle: read and decode -> by content hash into partitions -> sort -> drop duplicates, split, write.
How many partitions there are follows from the number and size of the images alone, so that the same input gives the same
files on any cluster. Where the split is by exact numbers, a job before that one finds the first images by hash.
"""

from __future__ import annotations

import json
import time

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql.functions import min as least
from pyspark.sql.functions import struct

from pipelines.config.datasets import ImagePrepare
from pipelines.errors import DataError
from pipelines.lake.manifest import Manifest
from pipelines.lake.store import storage_errors
from pipelines.lake.task_facts import IMAGE_FILE, VALUE_BYTES
from pipelines.prepare.build_order import BuildOrder
from pipelines.prepare.images.image_manifest import assemble_images
from pipelines.prepare.images.image_partition import RowPlace, WriteSettings, write_partition
from pipelines.prepare.images.image_sources import ImageSources, image_sources, images_of
from pipelines.prepare.outcomes import Outcomes, raise_faults, rejected_warning
from pipelines.prepare.remote import refuse_changed
from pipelines.prepare.spark_job import OUTCOME_DDL, arrow_batches, num_partitions, spark_errors

ROW_GROUP_BYTES, ROWS_PER_ROW_GROUP = 1024**2, (16, 512)
MOST_VALUES = 2**31 - 1  # offsets of Arrow's lists


def build_image_dataset(order: BuildOrder, prepare: ImagePrepare) -> Manifest:
    """Writes everything that the version is of; publishes only the table ``rejected``.

    Raises:
        DataError: unreadable input, images of several sizes, no image left, a split without a row, a class without one.
        StorageError: disk full, read-only.
    """
    with spark_errors(prepare):
        sources = image_sources(order, prepare)
        channels, height, width = sources.records.rule.shape
        order.report(f"prepare: {len(sources.classes):,} classes, images of {channels} x {height} x {width}")
        with arrow_batches(order.session()):
            began = time.monotonic()
            outcomes, settings = _written(order, prepare, sources)
            seconds = time.monotonic() - began
        if order.listing.remote.files:
            refuse_changed(order.session(), prepare.read_inputs, order.listing.remote)
    with storage_errors(order.staging.files.place()):
        manifest = assemble_images(outcomes, order, prepare, settings, sources.classes)
    images = manifest.counts["images"]
    order.report(f"prepare: {images:,} images written in {seconds:.1f} s ({images / seconds:,.0f} images/s)")
    if warning := rejected_warning(manifest.counts, outcomes, order.lake):
        order.report(warning)
    return manifest


def _written(order: BuildOrder, prepare: ImagePrepare, sources: ImageSources) -> tuple[Outcomes, WriteSettings]:
    """All partitions written: their outcomes, and what they were written by."""
    images = images_of(order.session(), sources, order.staging)
    lasts = None
    if prepare.split.by_rows:
        images = images.persist(StorageLevel.DISK_ONLY)  # read and decoded once
        lasts = _lasts(images, prepare)
    settings = _write_settings(order, prepare, sources, lasts)
    partitions = num_partitions(sources.shard_bytes, prepare.shard_bytes)
    written = (images.repartition(partitions, "key").sortWithinPartitions("key", "source", "position")
               .mapInArrow(lambda batches: write_partition(iter(batches), settings), OUTCOME_DDL))
    try:
        outcomes = [json.loads(row.outcome) for row in written.collect()]
    finally:
        images.unpersist()
    raise_faults(outcomes)
    return outcomes, settings


def _lasts(images: DataFrame, prepare: ImagePrepare) -> tuple[RowPlace, RowPlace] | None:
    """The last image of validation and of test, so that each has exactly its number of rows; None where something is faulty.

    Raises:
        DataError: there are not as many images.
    """
    split = prepare.split
    wanted = (split.validation_rows or 0) + split.test_rows
    places = images.where("reason IS NULL").select("key", "source", "position")
    if prepare.deduplicate:  # the first of each key is kept
        places = places.groupBy("key").agg(least(struct("source", "position")).alias("first"))
        places = places.select("key", "first.source", "first.position")
    first = [RowPlace(bytes(row.key), row.source.encode(), row.position)
             for row in places.orderBy("key", "source", "position").limit(wanted + 1).collect()]
    if len(first) <= wanted and not images.where("reason = 'fault'").head(1):
        raise DataError("prepare.split", f"validation_rows and test_rows are {wanted:,} together, and there are {len(first):,} "
                        "images", "give more images, or lower numbers")
    return (first[(split.validation_rows or 0) - 1], first[wanted - 1]) if len(first) > wanted else None


def _write_settings(order: BuildOrder, prepare: ImagePrepare, sources: ImageSources,
                    lasts: tuple[RowPlace, RowPlace] | None) -> WriteSettings:
    shape = sources.records.rule.shape
    fewest, most = ROWS_PER_ROW_GROUP
    rows = prepare.rows_per_row_group or max(fewest, min(most, ROW_GROUP_BYTES // shape.values))
    if rows * shape.values > MOST_VALUES:
        raise DataError("prepare.rows_per_row_group", f"{rows:,} images of {shape.values:,} values are more than the "
                        f"{MOST_VALUES:,} that a row group can count", f"use at most {MOST_VALUES // shape.values:,}")
    splits = ("train", "validation", "test") if sources.has_test else ("train", "validation")
    return WriteSettings(
        staging=order.staging, dataset_name=order.recipe.name, dataset_version=order.identity.version, shape=shape,
        num_classes=len(sources.classes), encoding=IMAGE_FILE if sources.records.as_files else VALUE_BYTES,
        deduplicate=prepare.deduplicate, splits=splits, fractions=prepare.split.fractions,
        rows_per_row_group=rows, lasts=lasts)
