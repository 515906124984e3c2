"""The facts of a ResNet, counted by hand.

Runs on: driver (no torch).
Takes:   recipe section ``model`` and the dataset's task, which is ``classification``.
Gives:   ``ModelFacts``; tests hold them against ``models/resnet/model.py``.
"""

from __future__ import annotations

from pipelines.lake.task_facts import TaskFacts
from pipelines.models.resnet.settings import ResnetModel
from pipelines.plan.model_facts import FLOAT_BYTES, LayerFacts, ModelFacts


def block_channels(settings: ResnetModel) -> list[tuple[int, int, int]]:
    """Of each block, the channels that enter and leave it, and its stride: each group of blocks but the first halves height
    and width and doubles the channels."""
    found, entering = [], settings.width
    for group, count in enumerate(settings.blocks):
        for i in range(count):
            leaving = settings.width * 2**group
            found.append((entering, leaving, 2 if group and i == 0 else 1))
            entering = leaving
    return found


def facts(settings: ResnetModel, task: TaskFacts) -> ModelFacts:
    """Kept for backward: what enters each convolution and each normalisation, and what a rectification returns."""
    channels, height, width, classes = (task.sizes[name] for name in ("channels", "height", "width", "num_classes"))
    batch = settings.normalisation == "batch"

    def norms(count: int, of: int) -> tuple[int, int]:
        """Parameters, and bytes of running statistics."""
        return 2 * count * of, (2 * count * of * FLOAT_BYTES if batch else 0)

    large = settings.stem == "large"
    if large:
        height, width = -(-height // 2), -(-width // 2)
    size, first, places = 7 if large else 3, settings.width, height * width
    weights, (norm, buffers) = size * size * channels * first, norms(1, first)
    saved = task.columns[0].values + 2 * first * places
    if large:
        height, width = -(-height // 2), -(-width // 2)
        saved += 2 * first * height * width  # where the greatest was, 8 bytes
    layers = [LayerFacts("stem", weights + norm, 0, FLOAT_BYTES * saved, FLOAT_BYTES * first * height * width,
                         6.0 * weights * places, buffers)]
    for i, (entering, leaving, stride) in enumerate(block_channels(settings)):
        height, width = -(-height // stride), -(-width // stride)
        changes, values = stride > 1 or entering != leaving, leaving * height * width
        weights = 9 * (entering + leaving) * leaving + (entering * leaving if changes else 0)
        norm, buffers = norms(3 if changes else 2, leaving)
        layers.append(LayerFacts(f"block_{i}", weights + norm, 0, FLOAT_BYTES * values * (5 if changes else 4),
                                 FLOAT_BYTES * values, 6.0 * weights * height * width, buffers))
    saved = (2 if settings.dropout else 1) * leaving + classes
    layers.append(LayerFacts("head", leaving * classes + classes, 0, FLOAT_BYTES * saved, FLOAT_BYTES * classes,
                             6.0 * leaving * classes))
    return ModelFacts(tuple(layers), group_samples=settings.norm_samples if batch else 1)
