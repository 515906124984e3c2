"""The recipe's section ``model`` of the small convolutional network.

Runs on: driver and ranks (no torch).
Takes:   the mapping under ``model``.
Gives:   ``SECTION``, its class.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipelines.config.models import Dropout, ModelSection
from pipelines.config.section import Whole


class CnnModel(ModelSection):
    """The small convolutional network of the well-known MNIST example. What an image is comes from the dataset."""

    task: ClassVar[str] = "classification"

    kind: Literal["cnn"] = "cnn"
    first_channels: Annotated[Whole, Field(ge=1, le=2**16)] = 32
    second_channels: Annotated[Whole, Field(ge=1, le=2**16)] = 64
    dense_width: Annotated[Whole, Field(ge=1, le=2**20)] = 128
    image_dropout: Dropout = 0.25  # behind the convolutions
    dense_dropout: Dropout = 0.5


SECTION = CnnModel
