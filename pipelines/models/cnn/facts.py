"""The facts of the small convolutional network, counted by hand.

Runs on: driver (no torch).
Takes:   recipe section ``model`` and the dataset's task, which is ``classification``.
Gives:   ``ModelFacts``; tests hold them against ``models/cnn/model.py``.
"""

from __future__ import annotations

from pipelines.errors import ConfigError, SparkringError
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.cnn.settings import CnnModel
from pipelines.plan.model_facts import FLOAT_BYTES, LayerFacts, ModelFacts

SMALLEST = 6  # height and width that leave a pixel
_KERNEL = 3 * 3


def pooled_size(size: int) -> int:
    """Height or width behind two convolutions without padding and a pooling of 2."""
    return (size - 4) // 2


def facts(settings: CnnModel, task: TaskFacts) -> ModelFacts:
    """Kept for backward: what enters each convolution or matrix, the rectified values, where the greatest of four was (8 bytes),
    and dropout's factors.

    Raises:
        ConfigError: an image is too small.
    """
    channels, height, width, classes = (task.sizes[name] for name in ("channels", "height", "width", "num_classes"))
    if min(height, width) < SMALLEST:
        raise ConfigError(SparkringError("model.kind", f"cnn takes images of at least {SMALLEST} x {SMALLEST}, the dataset's are "
                                         f"{height} x {width}", "use a model of your own (model.factory), or larger images"))
    first, second, dense = settings.first_channels, settings.second_channels, settings.dense_width
    first_places, second_places = (height - 2) * (width - 2), (height - 4) * (width - 4)
    values = second * pooled_size(height) * pooled_size(width)

    def layer(name: str, weights: int, biases: int, places: int, saved: int, outputs: int, matrices: int = 0) -> LayerFacts:
        return LayerFacts(name, weights + biases, 0, FLOAT_BYTES * saved, FLOAT_BYTES * outputs, 6.0 * weights * places,
                          matrix_parameters=matrices)

    dropped, dropped_dense = (values if settings.image_dropout else 0), (dense if settings.dense_dropout else 0)
    return ModelFacts((
        layer("first", _KERNEL * channels * first, first, first_places, channels * height * width + first * first_places,
              first * first_places),
        layer("second", _KERNEL * first * second, second, second_places,
              second * second_places + 3 * values + dropped, values),
        layer("dense", values * dense, dense, 1, values + dense + dropped_dense, dense, values * dense),
        layer("logits", dense * classes, classes, 1, dense + classes, classes)))
