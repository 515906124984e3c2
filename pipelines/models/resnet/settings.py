"""The recipe's section ``model`` of a ResNet.

Runs on: driver and ranks (no torch).
Takes:   the mapping under ``model``.
Gives:   ``SECTION``, its class.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipelines.config.models import Dropout, ModelSection
from pipelines.config.numbers import divisors, one_of
from pipelines.config.section import Count, Whole
from pipelines.errors import SparkringError


class ResnetModel(ModelSection):
    """A residual network of basic blocks: ResNet-18, and smaller ones. What an image is comes from the dataset."""

    task: ClassVar[str] = "classification"

    kind: Literal["resnet"] = "resnet"
    # in each group of blocks: the first keeps height, width and channels, each further one halves, halves and doubles them
    blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)] = (2, 2, 2, 2)
    width: Annotated[Whole, Field(ge=1, le=2**16)] = 64  # channels of the first group
    stem: Literal["small", "large"] = "small"  # large: of images such as 224 x 224, which it makes a quarter as high and wide
    normalisation: Literal["group", "batch"] = "group"  # over groups of a sample's channels, or over groups of samples
    norm_groups: Count = 8  # group: of channels
    norm_samples: Annotated[Whole, Field(ge=2, le=2**31 - 1)] = 16  # batch: consecutive samples of a lane
    dropout: Dropout = 0.0  # behind the mean over all places

    def contradictions(self) -> list[SparkringError]:
        if self.normalisation == "batch" or self.width % self.norm_groups == 0:
            return []
        return [SparkringError("model.norm_groups", f"{self.norm_groups} does not divide model.width ({self.width})",
                               f"use {one_of(divisors(self.width))}")]


SECTION = ResnetModel
