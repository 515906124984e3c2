"""The small convolutional network of torch's well-known MNIST example, as a layered model.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   ``images_BCHW`` (float, normalised), at least 6 x 6.
Gives:   ``logits_BK`` (float).

Source: pytorch/examples, mnist; LeCun et al. 1998. The loss takes logits, so there is no log-softmax at the end.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.models.cnn.facts import pooled_size
from pipelines.models.cnn.settings import CnnModel
from pipelines.models.initial_values import fill_by_inputs
from pipelines.models.layered import LayeredModel


class FirstConvolution(nn.Module):
    """``images_BCHW -> hidden_BDHW``, 2 lower and narrower."""

    def __init__(self, channels: int, settings: CnnModel) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, settings.first_channels, 3)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return functional.relu(self.convolution(images_BCHW))


class SecondConvolution(nn.Module):
    """``hidden_BDHW -> values_BN``, pooled to half the height and width."""

    def __init__(self, settings: CnnModel) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(settings.first_channels, settings.second_channels, 3)
        self.dropout = nn.Dropout(settings.image_dropout)

    def forward(self, hidden_BDHW: Tensor) -> Tensor:
        pooled_BDHW = functional.max_pool2d(self.convolution(hidden_BDHW), 2)
        return self.dropout(functional.relu(pooled_BDHW)).flatten(1)  # the same as before pooling, of a quarter of the values


class Dense(nn.Module):
    """``values_BN -> hidden_BD``."""

    def __init__(self, num_values: int, settings: CnnModel) -> None:
        super().__init__()
        self.project = nn.Linear(num_values, settings.dense_width)
        self.dropout = nn.Dropout(settings.dense_dropout)

    def forward(self, values_BN: Tensor) -> Tensor:
        return self.dropout(functional.relu(self.project(values_BN)))


def sketch(settings: CnnModel, seed: int, *, channels: int, height: int, width: int, num_classes: int) -> LayeredModel:
    """On the meta device: its structure, without memory."""
    num_values = settings.second_channels * pooled_size(height) * pooled_size(width)
    with torch.device("meta"):
        return LayeredModel([("first", FirstConvolution(channels, settings)), ("second", SecondConvolution(settings)),
                             ("dense", Dense(num_values, settings)), ("logits", nn.Linear(settings.dense_width, num_classes))],
                            any_pixel_order=True)


def fill(cnn: LayeredModel, settings: CnnModel, seed: int, layers: Collection[str]) -> None:
    """Gives some layers of a sketch their initial weights, torch's own."""
    cnn.fill(layers, lambda name, parameter: fill_by_inputs(cnn, name, parameter, seed))
