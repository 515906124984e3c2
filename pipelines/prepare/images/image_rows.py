"""What a row of prepared images is, for everyone who reads it.

Runs on: driver and executors.
Takes:   the size of an image, the names of the classes, and what prepare counted of the training rows.
Gives:   ``image_columns`` of a shard; the ``TaskFacts`` of the manifest.

A row is ``image``, the uint8 values of its pixels, channel after channel, and ``label``, the index of its class's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipelines.lake.task_facts import Column, TaskFacts

USUAL_RESIZE = "crop"  # where the facts do not say how images of another size were fitted (``with_resize``)
PIXEL_RANGE = 255  # a pixel of 255 is 1.0: mean and deviation are of pixels divided by it


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


def with_resize(task: TaskFacts, resize: str) -> TaskFacts:
    """With the rule for images of another size, by which those that are predicted are fitted too."""
    return replace(task, facts=task.facts | {"resize": resize})
