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

    def contradictions(self) -> list[SparkringError]:
        if self.width % self.num_heads == 0:
            return []
        return [SparkringError("model.num_heads", f"{self.num_heads} does not divide model.width ({self.width})",
                               f"use {one_of(divisors(self.width))}")]


class FactoryModel(ModelSection):
    """A model of the user's: ``factory`` names a function that returns a ``LayeredModel``.

    It is called with the sizes that the dataset gives (``vocabulary_size``, ``sequence_length``) and every other key of
    this section.
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


MODEL_SECTIONS: dict[str, type[ModelSection]] = {"gpt": GptModel, "factory": FactoryModel}

Model = Annotated[Annotated[GptModel, Tag("gpt")] | Annotated[FactoryModel, Tag("factory")],
                  Discriminator(kind_of("gpt", MODEL_SECTIONS))]
