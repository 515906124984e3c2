"""The recipe's section ``model`` of a model that goes on from the weights of another: ``model: {from: FOLDER}``.

Runs on: driver and ranks (no torch).
Takes:   the mapping under ``model``.
Gives:   ``SECTION``, its class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator

from pipelines.config.models import ModelSection
from pipelines.config.secrets import without_password


class PretrainedModel(ModelSection):
    """The architecture and the initial weights of a folder: of transformers (Qwen3, Llama, GPT-2), or exported here.

    The folder's tokenizer is that of the dataset, unless ``prepare.tokenizer`` is given. Weights of any type are trained as
    float32; dropouts of another library's config are left out.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    kind: Literal["from"] = "from"
    # a path that all machines see, or a URL that fsspec reads, such as hf://Qwen/Qwen3-0.6B-Base
    folder: Annotated[str, Field(alias="from", min_length=1)]

    @field_validator("folder")
    @classmethod
    def _no_password(cls, url: str) -> str:
        return without_password(url, "the run's files", "the environment")

    @property
    def origin(self) -> str:
        return self.folder

    def with_paths(self, expanded: Callable[[str], str]) -> PretrainedModel:
        return self.model_copy(update={"folder": expanded(self.folder)})


SECTION = PretrainedModel
