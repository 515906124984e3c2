"""What a classification model says of images: their classes, and how sure it is.

Runs on: Spark's Python workers.
Takes:   files of images, or values of a table's column (``prepare/images/image_values.py``), arrays of pixels among them; those
         that cannot be used come with a reason.
Gives:   ``ImageAnswers``: the columns of ``contracts.py``, with ``prepare/images/decoding.py``'s reasons for what is no image.

What the model takes is made by the code that made its training rows: decoded and fitted by prepare, normalised by its task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipelines.models.exported_model import load_model
from pipelines.predict.contracts import Contract
from pipelines.prepare.images.decoding import ImageRule, ImageShape, RefusedImageError
from pipelines.prepare.images.image_rows import image_bounds
from pipelines.prepare.images.image_values import UnknownCodecError, fitted_pixels, stacked_pixels
from pipelines.tasks.classification import Classification

ROWS = 64  # that the model computes at once


class ImageAnswers:
    """Of one model: ``of`` is what the workers call."""

    def __init__(self, contract: Contract) -> None:
        exported, settings = load_model(contract.files, factory=contract.settings.factory), contract.settings
        # so convolutions take half the time (mnist-cnn, one thread); of the mapped file, their weights alone become this worker's
        self._model = exported.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._task = Classification(exported.task)
        sizes = exported.task.sizes
        shape = ImageShape(sizes["channels"], sizes["height"], sizes["width"])
        bounds = image_bounds(exported.task.facts)
        self._rule = ImageRule(shape, size_given=True, channels_given=True, resize=settings.resize or bounds.resize,
                               max_pixels=settings.max_image_pixels or bounds.max_pixels, first="")
        self._classes, self._top = exported.task.facts["classes"], min(settings.top, sizes["num_classes"])

    def of(self, ids: Sequence[str], contents: Sequence[Any], reasons: Sequence[str | None]) -> dict[str, list[Any]]:
        """See ``worker_model.Answers``."""
        said = list(reasons)
        nothing: list[Any] = [None] * len(said)
        labels, probabilities = list(nothing), list(nothing)
        for at in range(0, len(said), ROWS):
            rows, inputs_BCHW = self.inputs(contents[at : at + ROWS], said, at)
            if rows:
                found = self._top_of(inputs_BCHW)
                for row, (names, values) in zip(rows, found, strict=True):
                    labels[row], probabilities[row] = names, values
        return {"label": [names and names[0] for names in labels],
                "probability": [values and values[0] for values in probabilities],
                "labels": labels, "probabilities": probabilities, "reason": said}

    def inputs(self, contents: Sequence[Any], reasons: list[str | None], first: int) -> tuple[list[int], Tensor]:
        """What the model takes of some rows: their numbers, and ``inputs_BCHW``; the others get a reason.

        Args:
            first: the number of the first row. reasons: of all rows.
        """
        given = [row for row, content in enumerate(contents, first) if content is not None]
        plain = stacked_pixels([contents[row - first] for row in given], self._rule.shape)
        if plain is not None:
            return given, self._task.inputs(torch.from_numpy(plain).view(len(given), *self._rule.shape))
        rows: list[int] = []
        pixels = bytearray()
        for row in given:
            content = contents[row - first]
            try:
                pixels += fitted_pixels(content, self._rule)
                rows.append(row)
            except RefusedImageError as error:
                reasons[row] = error.reason
            except UnknownCodecError:
                reasons[row] = "undecodable"
        if not rows:
            return rows, torch.empty(0, *self._rule.shape)
        return rows, self._task.inputs(torch.frombuffer(pixels, dtype=torch.uint8).view(len(rows), *self._rule.shape))

    @torch.inference_mode()
    def _top_of(self, inputs_BCHW: Tensor) -> list[tuple[list[str], list[float]]]:
        values_BK, classes_BK = self._model(inputs_BCHW).float().softmax(-1).topk(self._top)
        return [([self._classes[index] for index in classes], values)
                for classes, values in zip(classes_BK.tolist(), values_BK.tolist(), strict=True)]
