"""All inputs of images, with their labels, classes and size; as one DataFrame ``images``.

Runs on: driver.
Takes:   the listed inputs, and where the version is made.
Gives:   ``ImageSources``, found by ``image_sources``; ``images_of``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pyspark.sql import DataFrame, SparkSession

from pipelines.config.datasets import ImagePrepare
from pipelines.errors import DataError
from pipelines.lake.staging import Staging
from pipelines.prepare.build_order import BuildOrder
from pipelines.prepare.images.class_names import ordered_classes
from pipelines.prepare.images.decoding import FoundShape, ImageRule, ImageShape
from pipelines.prepare.images.found_inputs import FoundInputs, find_inputs
from pipelines.prepare.images.image_records import IMAGE_DDL, ImageRecords
from pipelines.prepare.images.local_images import local_images
from pipelines.prepare.images.remote_images import remote_images
from pipelines.prepare.images.remote_tables import table_images

MOST_LOOKED_AT = 64  # images, to find what size and how many channels all have


@dataclass(frozen=True)
class ImageSources:
    """What is to be prepared."""

    prepare: ImagePrepare
    found: FoundInputs
    classes: tuple[str, ...]
    has_test: bool
    records: ImageRecords

    @property
    def images(self) -> int:
        """As many as there are at most."""
        return self.found.images

    @property
    def shard_bytes(self) -> int:
        """What all shards are likely to hold."""
        return self.found.bytes if self.records.as_files else self.images * self.records.rule.shape.values


def image_sources(order: BuildOrder, prepare: ImagePrepare) -> ImageSources:
    """
    Raises:
        DataError: an input is damaged, has no labels, too few classes, or no image of which the size is known.
    """
    found = find_inputs(order, prepare)
    classes = ordered_classes(found.labels(), prepare.classes)
    rule = _rule(prepare, found.shapes(order.session, prepare))
    return ImageSources(prepare, found, classes, prepare.split.takes_test or "test" in found.splits(),
                        ImageRecords(rule, {name: label for label, name in enumerate(classes)}, prepare.max_image_bytes,
                                     prepare.storage == "encoded"))


def _rule(prepare: ImagePrepare, shapes: Iterator[FoundShape]) -> ImageRule:
    """
    Args:
        shapes: of the first images; read only where the recipe does not say all.
    """
    size, channels, first = prepare.size, prepare.channels, ""
    if size is None or channels is None:
        looked_at = list[FoundShape]()
        for found in islice(shapes, MOST_LOOKED_AT):
            looked_at.append(found)
            if found.shape is not None:
                first = found.source
                size = size or (found.shape.height, found.shape.width)
                channels = channels or (1 if found.shape.channels == 1 else 3)
                break
    if size is None or channels is None:
        example = f", for example {looked_at[0].source} ({looked_at[0].problem})" if looked_at else ""
        raise DataError("prepare.inputs", f"none of the first {len(looked_at)} files is an image that can be read{example}",
                        "check the inputs, or set prepare.size and prepare.channels")
    return ImageRule(ImageShape(channels, *size), prepare.size is not None, prepare.channels is not None, prepare.resize,
                     prepare.max_image_pixels, first)


def images_of(spark: SparkSession, sources: ImageSources, staging: Staging) -> DataFrame:
    """Every image as a row of ``images`` (``image_records.IMAGE_DDL``)."""
    found, prepare, records = sources.found, sources.prepare, sources.records
    frames = [remote_images(spark, images, prepare, records) for images in found.remote]
    frames += [table_images(spark, table, prepare, records) for table in found.tables]
    if found.pieces:
        frames.append(local_images(spark, found.pieces, records, staging))
    if found.refused:
        frames.append(spark.createDataFrame(found.refused, IMAGE_DDL))
    whole = frames[0]
    for more in frames[1:]:
        whole = whole.union(more)
    return whole
