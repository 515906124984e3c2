"""What a dataset's manifest says of its task: the columns of a row, what is counted, what a model is made for.

Runs on: driver, executors and ranks (no torch).
Takes:   the values that ``prepare`` of the task gives, or a manifest's JSON.
Gives:   ``TaskFacts``; ``Column``; the Arrow schema of a shard.

Everything outside the task's own code works from these values: the feed reads any columns, plans count any unit, a report
names what it shows as the values say. Two examples of a row:

    language         tokens: int32 [T + 1], length: int32          unit "tokens", T of a sample at most
    classification   image: uint8 [C, H, W], label: int32          unit "samples", 1 of a sample

A column with a shape is in a shard as a list of its values; as ``VALUE_BYTES``, which Parquet neither widens nor counts one by
one (images of 28 x 28 are read ten times as fast); or as an ``IMAGE_FILE``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

VALUE_BYTES = "value bytes"  # a row's values in C order, little-endian
IMAGE_FILE = "image file"  # PNG, JPEG or WebP, upright, of the column's channels and size


@dataclass(frozen=True)
class Column:
    """One column of a shard, which is one field of a batch. No row lacks a value."""

    name: str
    dtype: str  # of a value, as numpy and Arrow both name it: "int32", "uint8", "float32"
    shape: tuple[int, ...] = ()  # of one row; (): one value
    filling: int = 0  # every value of a sample that is only padding
    allowed: tuple[int, int] | None = None  # lowest and highest value; None: not looked at
    encoding: str | None = None  # how a shard holds it: VALUE_BYTES, IMAGE_FILE; None: as a list, or as one value

    @property
    def values(self) -> int:
        """Of one row."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Pixels of channels, rows and columns."""
        return self.dtype == "uint8" and len(self.shape) == 3

    @property
    def row_bytes(self) -> int:
        return int(self.values * self._arrow_value.bit_width // 8)

    @property
    def arrow_type(self) -> pa.DataType:
        if self.encoding is not None:
            return pa.binary() if self.encoding == IMAGE_FILE else pa.binary(self.row_bytes)
        return pa.list_(self._arrow_value) if self.shape else self._arrow_value

    @property
    def _arrow_value(self) -> pa.DataType:
        return pa.type_for_alias(self.dtype)

    @staticmethod
    def of_json(content: dict[str, Any]) -> Column:
        """Raises KeyError, TypeError or ValueError where the content is not a column's."""
        allowed = content["allowed"]
        return Column(**{**content, "shape": tuple(content["shape"]), "allowed": None if allowed is None else tuple(allowed)})


def shard_schema(columns: Iterable[Column]) -> pa.Schema:
    return pa.schema([pa.field(column.name, column.arrow_type, nullable=False) for column in columns])


# facts that data and model must have in common, where both have them
_CONTRACT = {"tokenizer_sha256": "another tokenizer", "classes": "other classes, or in another order"}


def _shown(value: Any) -> str:
    shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return shown if len(shown) <= 100 else f"{shown[:100]}..."


@dataclass(frozen=True)
class TaskFacts:
    """A task as a dataset was prepared for it."""

    name: str  # in the table of ``pipelines/tasks``
    columns: tuple[Column, ...]
    sizes: dict[str, int]  # that a model is made for, named as a model's factory takes them
    unit: str  # what a loss is summed over and a step counts beside its samples, in the plural: "tokens"
    units_per_sample: int  # at most
    loss_unit: str  # of the mean loss: "nats per token"
    loss_exponential: str | None = None  # what e to the power of the loss is called, where it has a name: "perplexity"
    facts: dict[str, Any] = field(default_factory=dict)  # that only the task's own code reads

    @property
    def image_column(self) -> str:
        """The name of the column of images; empty where there is none."""
        return next((column.name for column in self.columns if column.is_image), "")

    def difference_from(self, model: TaskFacts) -> str | None:
        """Why data of this task is not what a model of the other is made for, as the rest of a sentence; None where it is."""
        if self.name != model.name:
            return f"is for the task {self.name}, the model for {model.name}"
        for name, size in model.sizes.items():
            if self.sizes.get(name) != size:
                return f"has {name} {self.sizes.get(name)}, the model {size}"
        for name, words in _CONTRACT.items():
            own, its = self.facts.get(name), model.facts.get(name)
            if own and its and own != its:  # the first models did not say which tokenizer they had
                return f"has {words} ({_shown(own)}) than the model ({_shown(its)})"
        return None

    @staticmethod
    def of_json(content: dict[str, Any]) -> TaskFacts:
        """Raises KeyError, TypeError or ValueError where the content is not a task's."""
        return TaskFacts(**{**content, "columns": tuple(map(Column.of_json, content["columns"]))})
