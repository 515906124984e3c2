"""What a row of prepared images is, for everyone who reads it.

Runs on: driver and executors.
Takes:   the size of an image, the names of the classes, and what prepare counted of the training rows.
Gives:   ``image_columns`` of a shard; the ``TaskFacts`` of the manifest.

A row is ``image``, the uint8 values of its pixels, channel after channel, and ``label``, the index of its class's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pipelines.config.datasets import USUAL_IMAGE_BYTES, USUAL_IMAGE_PIXELS
from pipelines.lake.task_facts import Column, TaskFacts


def image_columns(channels: int, height: int, width: int, num_classes: int, encoding: str | None = None) -> tuple[Column, ...]:
    return (Column("image", "uint8", (channels, height, width), encoding=encoding),
            Column("label", "int32", allowed=(0, num_classes - 1)))


def classification_facts(*, channels: int, height: int, width: int, classes: Sequence[str], mean: Sequence[float],
                         deviation: Sequence[float], class_counts: Sequence[int], encoding: str | None = None) -> TaskFacts:
    """
    Args:
        mean, deviation: of each channel, of pixels between 0 and 1 of the training rows. class_counts: of each class, how
            many training rows have it.
    """
    return TaskFacts(
        "classification", image_columns(channels, height, width, len(classes), encoding),
        sizes={"channels": channels, "height": height, "width": width, "num_classes": len(classes)},
        unit="samples", units_per_sample=1, loss_unit="nats per sample",
        facts={"classes": list(classes), "mean": list(mean), "deviation": list(deviation), "class_counts": list(class_counts)})


class ImageBounds(NamedTuple):
    """Which images were taken, and how those of another size were fitted: the same holds for those that are predicted."""

    resize: str = "crop"
    max_pixels: int = USUAL_IMAGE_PIXELS
    max_bytes: int = USUAL_IMAGE_BYTES


def with_bounds(task: TaskFacts, bounds: ImageBounds) -> TaskFacts:
    return replace(task, facts=task.facts | bounds._asdict())


def image_bounds(facts: Mapping[str, Any]) -> ImageBounds:
    """By a task's facts; the usual ones where they do not say."""
    return ImageBounds(**{name: facts[name] for name in ImageBounds._fields if name in facts})
