"""What models of images are asked: images, of which classes they are.

Runs on: driver (types of columns), Spark's Python workers (values); without torch.
Takes:   the section ``predict``; values of a table's column, in the forms that prepare reads and as arrays of pixels.
Gives:   ``AskedImages``, a ``contracts.AskedTask``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import Column
from pyspark.sql.functions import array_size, flatten, octet_length, struct
from pyspark.sql.types import ArrayType, BinaryType, DataType, DecimalType, NumericType, StructType

from pipelines.config.predictions import Predict
from pipelines.prepare.images.image_rows import image_bounds
from pipelines.prepare.images.image_values import SPARK_FIELDS, size_in_form
from pipelines.prepare.images.table_pieces import columns_of_images

CLASSES = "label STRING, probability DOUBLE, labels ARRAY<STRING>, probabilities ARRAY<DOUBLE>, reason STRING"
MOST_NESTED = 3  # channels of rows of pixels


class AskedImages:
    """Bytes of files, images of Spark and of Hugging Face, and arrays of pixels, flat or nested."""

    takes = "image"
    files: tuple[str, ...] = ("image",)
    values = "binary, of Spark's or Hugging Face's images, or of arrays of pixels"
    answers = "pipelines.predict.image_answers:ImageAnswers"

    def columns(self, settings: Predict) -> str:
        return CLASSES

    def refused(self, settings: Predict) -> str | None:
        return None if settings.generate is None else "generate"

    def max_bytes(self, facts: Mapping[str, Any]) -> int:
        return image_bounds(facts).max_bytes

    def column(self, types: Mapping[str, str]) -> str:
        found = columns_of_images(types)
        return self.takes if self.takes in types or len(found) != 1 else found[0]

    def given(self, value: Column, kind: DataType) -> tuple[Column, Column] | None:
        if isinstance(kind, StructType):
            types = {field.name: field.dataType for field in kind}
            if types.keys() >= SPARK_FIELDS and types["data"] == BinaryType():
                return struct(*(value[name].alias(name) for name in sorted(SPARK_FIELDS))), octet_length(value["data"])
            if types.get("bytes") == BinaryType():
                return value["bytes"], octet_length(value["bytes"])
            return None
        if isinstance(kind, ArrayType):
            return (value, array_size(_flat(value, kind))) if _of_numbers(kind) else None
        return (value, octet_length(value)) if isinstance(kind, BinaryType) else None

    def checked(self, value: Any, max_bytes: int) -> tuple[Any, str | None]:
        size = 0 if value is None else size_in_form(value)
        reason = "malformed" if size is None else "empty" if size == 0 else "oversized" if size > max_bytes else None
        return (value if reason is None else None), reason


def _of_numbers(kind: DataType) -> bool:
    for _ in range(MOST_NESTED):
        if isinstance(kind, ArrayType):
            kind = kind.elementType
    return isinstance(kind, NumericType) and not isinstance(kind, DecimalType)


def _flat(value: Column, kind: ArrayType) -> Column:
    while isinstance(kind.elementType, ArrayType):
        value, kind = flatten(value), kind.elementType
    return value
