"""What a Spark task is told of how documents become shards.

Runs on: driver (makes it), executors.
Takes:   the recipe's section, the tokenizer in the staging folder.
Gives:   ``PackSettings``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipelines.config.datasets import TextPrepare
from pipelines.lake.manifest import TOKENIZER_NAME
from pipelines.lake.staging import Staging
from pipelines.prepare.build_order import BuildOrder
from pipelines.prepare.text.encoders import EncoderKind
from pipelines.prepare.text.tokenizer import end_of_text_id, tokenizer_of, vocabulary_size


@dataclass(frozen=True)
class PackSettings:
    """What a task needs to know."""

    staging: Staging
    dataset_name: str
    dataset_version: str
    encoder: EncoderKind
    tokenizer_sha256: str
    vocabulary_size: int
    end_of_text_id: int
    sequence_length: int
    rows_per_row_group: int
    split_kind: str  # hash | position
    validation_fraction: float
    test_fraction: float  # 0: there is no split test
    deduplicate: bool
    max_document_bytes: int

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "validation", "test") if self.test_fraction else ("train", "validation")


def pack_settings(order: BuildOrder, prepare: TextPrepare, encoder: EncoderKind) -> PackSettings:
    saved = order.staging.files.read(TOKENIZER_NAME)
    tokenizer = tokenizer_of(saved)
    return PackSettings(
        staging=order.staging, dataset_name=order.recipe.name, dataset_version=order.identity.version, encoder=encoder,
        tokenizer_sha256=hashlib.sha256(saved).hexdigest(), vocabulary_size=vocabulary_size(tokenizer),
        end_of_text_id=end_of_text_id(tokenizer), sequence_length=prepare.sequence_length,
        rows_per_row_group=prepare.rows_per_row_group, split_kind=prepare.split.kind,
        validation_fraction=prepare.split.validation_fraction, test_fraction=prepare.split.test_fraction,
        deduplicate=prepare.deduplicate, max_document_bytes=prepare.max_document_bytes)
