"""What models of language are asked: texts, how likely they are or how they go on.

Runs on: driver (types of columns), Spark's Python workers (values); without torch.
Takes:   the section ``predict``; values of a table's column.
Gives:   ``AskedTexts``, a ``contracts.AskedTask``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import Column
from pyspark.sql.functions import octet_length
from pyspark.sql.types import BinaryType, DataType, StringType

from pipelines.config.predictions import Predict
from pipelines.prepare.text.input_records import value_record
from pipelines.prepare.text.language_rows import most_document_bytes

SCORES = "tokens BIGINT, bytes BIGINT, log_likelihood DOUBLE, bits_per_byte DOUBLE, reason STRING"
CONTINUATIONS = "continuation STRING, tokens BIGINT, reason STRING"


class AskedTexts:
    """Strings, or bytes of UTF-8."""

    takes = "text"
    files: tuple[str, ...] = ("text", "lines", "jsonl")
    values = "string or binary"
    answers = "pipelines.predict.text_answers:TextAnswers"

    def columns(self, settings: Predict) -> str:
        return SCORES if settings.generate is None else CONTINUATIONS

    def refused(self, settings: Predict) -> str | None:
        return None

    def max_bytes(self, facts: Mapping[str, Any]) -> int:
        return most_document_bytes(facts)

    def column(self, types: Mapping[str, str]) -> str:
        return self.takes

    def given(self, value: Column, kind: DataType) -> tuple[Column, Column] | None:
        if not isinstance(kind, StringType | BinaryType):
            return None
        content = value.cast("binary")
        return content, octet_length(content)

    def checked(self, value: Any, max_bytes: int) -> tuple[bytes | None, str | None]:
        read = value_record("", 0, value, self.takes, max_bytes)
        return read.content, read.reason
