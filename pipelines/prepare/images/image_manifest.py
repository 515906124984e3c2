"""What all partitions came to, as one dataset of images: shards named, facts added up, the manifest.

Runs on: driver.
Takes:   the outcome of each partition (``image_partition.py``), and the staging that they wrote to.
Gives:   ``assemble_images``: the manifest; what was refused is published in table ``rejected``.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from pipelines.config.datasets import ImagePrepare
from pipelines.errors import DataError
from pipelines.lake.image_facts import PIXEL_RANGE
from pipelines.lake.manifest import Baseline, Manifest
from pipelines.prepare.build_order import BuildOrder
from pipelines.prepare.images.image_partition import WriteSettings
from pipelines.prepare.images.image_records import REASONS
from pipelines.prepare.images.image_rows import ImageBounds, classification_facts, with_bounds
from pipelines.prepare.outcomes import Outcomes
from pipelines.prepare.publish import publish_rejected
from pipelines.prepare.shard_files import named_shards, rejected_parts


def assemble_images(outcomes: Outcomes, order: BuildOrder, prepare: ImagePrepare, settings: WriteSettings,
                    classes: tuple[str, ...]) -> Manifest:
    """
    Raises:
        DataError: no image is left, a split has no row, or a class none to train on.
    """
    recipe, identity, staging = order.recipe, order.identity, order.staging
    outcomes = sorted(outcomes, key=lambda outcome: outcome["partition"])
    counts = Counter({f"rejected_{reason}": 0 for reason in REASONS})
    for outcome in outcomes:
        counts.update(outcome["counts"])
    publish_rejected(rejected_parts(outcomes), staging.files, order.lake, recipe.name, identity.version)
    class_counts = {split: _class_counts(outcomes, split, len(classes)) for split in settings.splits}
    _check_rows(class_counts, classes, counts, order)
    splits = {}
    for split in settings.splits:
        splits[split], moved = named_shards(outcomes, split, staging, lambda written: None)
        for _ in moved:
            """Each is in its place."""
    staging.sweep({shard.path for shards in splits.values() for shard in shards})
    channels, height, width = settings.shape
    mean, deviation = _mean_and_deviation(outcomes, int(class_counts["train"].sum()) * height * width)
    task = classification_facts(channels=channels, height=height, width=width, classes=classes, mean=mean, deviation=deviation,
                                class_counts=class_counts["train"].tolist(), encoding=settings.encoding)
    return Manifest(
        name=recipe.name, version=identity.version, input_fingerprint=identity.fingerprint, recipe_hash=identity.recipe_hash,
        task=with_bounds(task, ImageBounds(prepare.resize, prepare.max_image_pixels, prepare.max_image_bytes)),
        splits=splits, units={split: int(counts_K.sum()) for split, counts_K in class_counts.items()},
        counts=dict(sorted(counts.items())), baselines=(
            Baseline("guessing", math.log(len(classes))),
            Baseline("class frequencies", _frequency_loss(class_counts["train"], class_counts["validation"]))),
        source={"inputs": [source.model_dump(mode="json") for source in prepare.inputs]})


def _class_counts(outcomes: Outcomes, split: str, num_classes: int) -> np.ndarray:
    """Rows of each class."""
    counts_K = np.zeros(num_classes, dtype=np.int64)
    for facts in (outcome["shards"][split] for outcome in outcomes):
        for label, count in ({} if facts is None else facts["class_counts"]).items():
            counts_K[int(label)] += count
    return counts_K


def _mean_and_deviation(outcomes: Outcomes, values: int) -> tuple[list[float], list[float]]:
    """Of each channel, of the training rows' pixels between 0 and 1; from whole numbers, so the same in any order.

    Args:
        values: of one channel, in all rows.
    """
    shards = [outcome["shards"]["train"] for outcome in outcomes]
    sums_C2 = np.sum([facts["sums"] for facts in shards if facts is not None], axis=0, dtype=np.int64).tolist()
    mean = [total / values / PIXEL_RANGE for total, _ in sums_C2]
    deviation = [math.sqrt(values * squares - total**2) / values / PIXEL_RANGE for total, squares in sums_C2]
    return mean, deviation


def _frequency_loss(train_K: np.ndarray, validation_K: np.ndarray) -> float:
    """Nats per sample of a model that knows only how often each class is (add-one smoothed)."""
    probabilities_K = (train_K + 1.0) / (train_K.sum() + len(train_K))
    return float(-(validation_K * np.log(probabilities_K)).sum() / validation_K.sum())


def _check_rows(class_counts: dict[str, np.ndarray], classes: tuple[str, ...], counts: Counter[str], order: BuildOrder) -> None:
    """Each split must hold a row, and each class a row to train on."""
    refused = ", ".join(f"{counts[f'rejected_{reason}']:,} {reason}" for reason in REASONS if counts[f"rejected_{reason}"])
    table = order.lake.store.place(order.lake.table("rejected"))
    if not counts["images"]:
        raise DataError("prepare.inputs", f"no image is left: all of {counts['input_records']:,} records were rejected "
                        f"({refused})",
                        f"see the table {table}, and check format, classes and where labels come from")
    for split, counts_K in class_counts.items():
        if not counts_K.any():
            raise DataError("prepare.split", f"the {split} split is empty: {counts['images']:,} images are left"
                            f"{f', rejected: {refused}' if refused else ''}",
                            "give more images, or change prepare.split (validation_fraction and test_fraction take from train)")
    missing = [name for name, count in zip(classes, class_counts["train"], strict=True) if not count]
    if missing:
        elsewhere = ", ".join(f"{counts_K[classes.index(missing[0])]:,} in {split}" for split, counts_K in class_counts.items()
                              if split != "train")
        raise DataError("prepare.inputs", f"class {missing[0]!r} has no image to train on ({elsewhere}"
                        f"{f'; rejected: {refused}' if refused else ''}); such classes: {len(missing)}",
                        "give images of it, change prepare.split, or name in prepare.classes those that are meant")
