"""The recipe's section ``model``, one class per kind of model.

Runs on: driver and ranks.
Takes:   the mapping under ``model``; without ``kind`` it is a GPT, or with ``factory`` the user's own.
Gives:   ``Model``, the section of any kind; ``MODEL_SECTIONS``, each class by its kind.

What becomes of a section is its architecture's (``models/architectures.py``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from pipelines.config.numbers import divisors, one_of
from pipelines.config.section import Count, KindedSection, Whole, kind_of
from pipelines.errors import SparkringError

Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]  # the share of values that a sample loses in a training step


class ModelSection(KindedSection):
    """What the sections of all kinds have."""

    @property
    def users_factory(self) -> str | None:
        """The function of the user's that makes the model, ``package.module:function``; None for the models of this project."""
        return None


class GptModel(ModelSection):
    """A decoder-only transformer (GPT-2 architecture). ``sequence_length`` comes from ``prepare``."""

    kind: Literal["gpt"] = "gpt"
    num_layers: Annotated[Whole, Field(ge=1, le=2**14)] = 4
    num_heads: Count = 4
    width: Annotated[Whole, Field(ge=1, le=2**20)] = 128
    tied_embeddings: bool = True
    bias: bool = True
    dropout: Dropout = 0.0  # behind the embedding, attention and feed-forward net of each block

    def contradictions(self) -> list[SparkringError]:
        if self.width % self.num_heads == 0:
            return []
        return [SparkringError("model.num_heads", f"{self.num_heads} does not divide model.width ({self.width})",
                               f"use {one_of(divisors(self.width))}")]


class CnnModel(ModelSection):
    """The small convolutional network of the well-known MNIST example. What an image is comes from the dataset."""

    kind: Literal["cnn"] = "cnn"
    first_channels: Annotated[Whole, Field(ge=1, le=2**16)] = 32
    second_channels: Annotated[Whole, Field(ge=1, le=2**16)] = 64
    dense_width: Annotated[Whole, Field(ge=1, le=2**20)] = 128
    image_dropout: Dropout = 0.25  # behind the convolutions
    dense_dropout: Dropout = 0.5


class ResnetModel(ModelSection):
    """A residual network of basic blocks: ResNet-18, and smaller ones. What an image is comes from the dataset."""

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


class FactoryModel(ModelSection):
    """A model of the user's: ``factory`` names a function that returns a ``LayeredModel``.

    It is called with the sizes that the dataset gives (``vocabulary_size`` and ``sequence_length``, or ``channels``,
    ``height``, ``width`` and ``num_classes``) and every other key of this section.
    """

    model_config = ConfigDict(extra="allow")

    kind: Literal["factory"] = "factory"
    factory: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]  # "package.module:function"

    @property
    def users_factory(self) -> str:
        return self.factory

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are the factory's."""
        return dict(self.model_extra or {})


MODEL_SECTIONS: dict[str, type[ModelSection]] = {"gpt": GptModel, "cnn": CnnModel, "resnet": ResnetModel, "factory": FactoryModel}

Model = Annotated[Annotated[GptModel, Tag("gpt")] | Annotated[CnnModel, Tag("cnn")] | Annotated[ResnetModel, Tag("resnet")]
                  | Annotated[FactoryModel, Tag("factory")], Discriminator(kind_of("gpt", MODEL_SECTIONS))]
