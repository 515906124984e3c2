"""ResNet of basic blocks, as a layered model: every skip lies inside a layer.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   ``images_BCHW`` (float, normalised).
Gives:   ``logits_BK`` (float).

Source: He et al. 2016 (ResNet-18: blocks [2, 2, 2, 2], width 64); Wu & He 2018 (group normalisation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.models.grouped_norm import GroupedBatchNorm
from pipelines.models.initial_values import fill_by_inputs, generator_of
from pipelines.models.layered import LayeredModel
from pipelines.models.resnet.facts import block_channels
from pipelines.models.resnet.settings import ResnetModel

Norm = Callable[[int], nn.Module]


class Stem(nn.Module):
    """``images_BCHW -> hidden_BDHW``: as large as the image, or of a large image a quarter of its height and width."""

    def __init__(self, channels: int, settings: ResnetModel, norm: Norm) -> None:
        super().__init__()
        self.large = settings.stem == "large"
        size, stride = (7, 2) if self.large else (3, 1)
        self.convolution = nn.Conv2d(channels, settings.width, size, stride, size // 2, bias=False)
        self.norm = norm(settings.width)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        hidden_BDHW = functional.relu(self.norm(self.convolution(images_BCHW)))
        return functional.max_pool2d(hidden_BDHW, 3, 2, 1) if self.large else hidden_BDHW


class BasicBlock(nn.Module):
    """Two convolutions and a skip around them, a convolution of 1 x 1 where the shape changes."""

    def __init__(self, entering: int, leaving: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Conv2d(entering, leaving, 3, stride, 1, bias=False)
        self.first_norm = norm(leaving)
        self.second = nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False)
        self.second_norm = norm(leaving)
        changes = stride > 1 or entering != leaving
        self.skip = nn.Conv2d(entering, leaving, 1, stride, bias=False) if changes else None
        self.skip_norm = norm(leaving) if changes else None

    def forward(self, hidden_BDHW: Tensor) -> Tensor:
        inner_BDHW = functional.relu(self.first_norm(self.first(hidden_BDHW)))
        inner_BDHW = self.second_norm(self.second(inner_BDHW))
        if self.skip is not None and self.skip_norm is not None:
            hidden_BDHW = self.skip_norm(self.skip(hidden_BDHW))
        return functional.relu(hidden_BDHW + inner_BDHW)


class ImageHead(nn.Module):
    """Mean over all places, and projection on the classes."""

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.project = nn.Dropout(dropout), nn.Linear(width, num_classes)

    def forward(self, hidden_BDHW: Tensor) -> Tensor:
        return self.project(self.dropout(hidden_BDHW.mean((2, 3))))


def sketch(settings: ResnetModel, seed: int, *, channels: int, height: int, width: int, num_classes: int) -> LayeredModel:
    """On the meta device: its structure, without memory."""
    def norm(width: int) -> nn.Module:
        if settings.normalisation == "batch":
            return GroupedBatchNorm(width, settings.norm_samples)
        return nn.GroupNorm(settings.norm_groups, width)

    with torch.device("meta"):
        blocks = [(f"block_{i}", BasicBlock(*channels_and_stride, norm))
                  for i, channels_and_stride in enumerate(block_channels(settings))]
        leaving = block_channels(settings)[-1][1]
        model = LayeredModel([("stem", Stem(channels, settings, norm)), *blocks,
                              ("head", ImageHead(leaving, num_classes, settings.dropout))])
    for module in model.modules():
        if isinstance(module, GroupedBatchNorm):
            module.current = model.current
    return model


def fill(resnet: LayeredModel, settings: ResnetModel, seed: int, layers: Collection[str]) -> None:
    """Gives some layers of a sketch their initial weights."""
    def initialise(name: str, value: Tensor) -> None:
        module, own_name = name.split(".")[-2:]
        if module.endswith("norm"):
            value.fill_(1.0 if own_name in ("weight", "running_var") else 0.0)
        elif value.dim() == 4:  # so that the variance of what backward sends is kept
            value.normal_(0.0, math.sqrt(2.0 / (len(value) * value[0, 0].numel())), generator=generator_of(seed, name))
        else:
            fill_by_inputs(resnet, name, value, seed)

    resnet.fill(layers, initialise)
