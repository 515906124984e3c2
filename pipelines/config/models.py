"""The table of the kinds of models, and the recipe's section ``model``.

Runs on: driver and ranks (no torch).
Takes:   the mapping under ``model``; without ``kind`` it is a GPT, with ``from`` that of a folder, or with ``factory`` the user's
         own.
Gives:   ``ARCHITECTURES``; ``Model``, the section of any kind; ``MODEL_SECTIONS``, each class by its kind.

A kind is a plug-in: a package, named here and nowhere else, whose module ``settings`` holds the section's class. It is looked up
when the first recipe is read, by its name, since the packages lie in layers above this one; ``models/architectures.py`` says what
else is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, ClassVar, Union, cast

from pydantic import Discriminator, Field, GetCoreSchemaHandler, Tag

from pipelines.config.section import Count, KindedSection, kind_of
from pipelines.errors import ConfigError, SparkringError

ARCHITECTURES = {
    "gpt": "pipelines.models.gpt",
    "llama": "pipelines.models.llama",
    "qwen3": "pipelines.models.qwen3",
    "cnn": "pipelines.models.cnn",
    "resnet": "pipelines.models.resnet",
    "from": "pipelines.models.pretrained",
    "factory": "pipelines.models.factory",
}
USUAL_MODEL = "gpt"  # of a section that does not say

Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]  # the share of values that a sample loses in a training step


class ModelSection(KindedSection):
    """What the sections of all kinds have."""

    task: ClassVar[str | None] = None  # that it is for; None: any

    @property
    def users_factory(self) -> str | None:
        """The function of the user's that makes the model, ``package.module:function``; None for the models of this project."""
        return None

    @property
    def origin(self) -> str | None:
        """The folder, at a path or URL, that architecture, weights and tokenizer come from; None: the section says them."""
        return None

    def with_paths(self, expanded: Callable[[str], str]) -> ModelSection:
        """The same with each path as it is in full."""
        return self


class LanguageModelSection(ModelSection):
    """What models from tokens to logits have. Dataset and model agree on both sizes where a section does not give them."""

    task: ClassVar[str | None] = "language"

    vocabulary_size: Count | None = None  # tokens that the model has, at least the dataset's; null: just those
    positions: Count | None = None  # longest text that it is for, at least prepare.sequence_length; null: just that

    def sizes_of(self, dataset: Mapping[str, int]) -> tuple[int, int]:
        """The model's vocabulary and positions.

        Args:
            dataset: ``TaskFacts.sizes``.
        Raises:
            ConfigError: the dataset needs more.
        """
        wanted = {"vocabulary_size": dataset["vocabulary_size"], "positions": dataset["sequence_length"]}
        given = {"vocabulary_size": self.vocabulary_size, "positions": self.positions}
        if faults := [SparkringError(f"model.{key}", f"{size:,} is below the dataset's {wanted[key]:,}",
                                     f"use at least {wanted[key]}, or leave it out")
                      for key, size in given.items() if size is not None and size < wanted[key]]:
            raise ConfigError(faults)
        return self.vocabulary_size or wanted["vocabulary_size"], self.positions or wanted["positions"]


class _ModelSections(Mapping[str, type[ModelSection]]):
    """Each kind's class, loaded when it is asked for."""

    def __getitem__(self, kind: str) -> type[ModelSection]:
        return cast(type[ModelSection], import_module(f"{ARCHITECTURES[kind]}.settings").SECTION)

    def __iter__(self) -> Iterator[str]:
        return iter(ARCHITECTURES)

    def __len__(self) -> int:
        return len(ARCHITECTURES)


MODEL_SECTIONS: Mapping[str, type[ModelSection]] = _ModelSections()


class _OfAnyKind:
    """The union of all kinds' classes, made when pydantic needs it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        kinds = tuple(Annotated[section, Tag(kind)] for kind, section in MODEL_SECTIONS.items())
        chosen: Any = Annotated[Union[kinds], Discriminator(kind_of(USUAL_MODEL, MODEL_SECTIONS))]  # noqa: UP007
        return handler.generate_schema(chosen)


Model = Annotated[ModelSection, _OfAnyKind()]
