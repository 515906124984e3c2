"""What a row of prepared text is, for everyone who reads it.

Runs on: driver and executors.
Takes:   the sequence length, and what the tokenizer says.
Gives:   ``language_columns`` of a shard; the ``TaskFacts`` of the manifest.

A row is ``tokens``, exactly ``sequence_length + 1`` of them, and ``length``, the number of real ones at its front: one to
predict from and one to predict at least. The rest is end-of-text filling that no loss may count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.config.datasets import USUAL_DOCUMENT_BYTES
from pipelines.lake.task_facts import Column, TaskFacts

SHORTEST_SAMPLE_TOKENS = 2


def language_columns(sequence_length: int, end_of_text_id: int) -> tuple[Column, ...]:
    return (Column("tokens", "int32", (sequence_length + 1,), filling=end_of_text_id),
            Column("length", "int32", allowed=(SHORTEST_SAMPLE_TOKENS, sequence_length + 1)))


def language_facts(*, sequence_length: int, vocabulary_size: int, end_of_text_id: int, tokenizer_sha256: str,
                   token_bytes: Mapping[str, float] | None = None, max_document_bytes: int | None = None) -> TaskFacts:
    """
    Args:
        token_bytes: of each split, how many bytes of text a token stands for, end-of-text tokens among them.
        max_document_bytes: longer documents were rejected, as longer texts are that are predicted.
    """
    return TaskFacts(
        "language", language_columns(sequence_length, end_of_text_id),
        sizes={"vocabulary_size": vocabulary_size, "sequence_length": sequence_length},
        unit="tokens", units_per_sample=sequence_length, loss_unit="nats per token", loss_exponential="perplexity",
        facts={"end_of_text_id": end_of_text_id, "tokenizer_sha256": tokenizer_sha256,
               **({} if token_bytes is None else {"token_bytes": dict(token_bytes)}),
               **({} if max_document_bytes is None else {"max_document_bytes": max_document_bytes})})


def most_document_bytes(facts: Mapping[str, Any]) -> int:
    """How long a document may be, by a task's facts."""
    return int(facts.get("max_document_bytes", USUAL_DOCUMENT_BYTES))
