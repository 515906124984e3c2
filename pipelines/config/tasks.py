"""The recipe's section ``task``, one class per task.

Runs on: driver and ranks.
Takes:   the mapping under ``task``; without ``kind`` it is the task of the data (``PrepareSection.task``).
Gives:   ``TaskOfRecipe``, the section of any kind; ``TASK_SECTIONS``, each class by its kind.

What becomes of a section is its module's in ``pipelines/tasks``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from pipelines.config.section import KindedSection, Whole, kind_of


class LanguageTask(KindedSection):
    """Predict each next token."""

    kind: Literal["language"] = "language"
    sample_prompt: str = "\n"  # the text that the generated lines start from
    sample_tokens: Annotated[Whole, Field(ge=0, le=2**20)] = 200  # generated once training has ended; 0: none


class ClassificationTask(KindedSection):
    """Which class an image is of."""

    kind: Literal["classification"] = "classification"


TASK_SECTIONS: dict[str, type[KindedSection]] = {"language": LanguageTask, "classification": ClassificationTask}

TaskOfRecipe = Annotated[Annotated[LanguageTask, Tag("language")] | Annotated[ClassificationTask, Tag("classification")],
                         Discriminator(kind_of("language"))]
