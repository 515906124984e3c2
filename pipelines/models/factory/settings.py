"""The recipe's section ``model`` of a model of the user's.

Runs on: driver and ranks (no torch).
Takes:   the mapping under ``model``.
Gives:   ``SECTION``, its class.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pipelines.config.models import ModelSection


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


SECTION = FactoryModel
