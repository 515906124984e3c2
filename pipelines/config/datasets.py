"""The recipe's section ``prepare``, one class per kind of data.

Runs on: driver and executors.
Takes:   the mapping under ``prepare``; without ``kind`` it is text.
Gives:   ``Prepare``, the section of any kind; ``PREPARE_SECTIONS``, each class by its kind.

What becomes of a section is its folder's in ``pipelines/prepare``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from pipelines.config.secrets import has_credentials
from pipelines.config.section import Bytes, Count, Fraction, KindedSection, Section, Whole
from pipelines.errors import SparkringError


class InputPath(Section):
    """Where an input is, of any kind.

    ``path`` is a file, a folder (read recursively), a glob, or any URL that the Spark session can read. Names that start
    with ``.`` or ``_`` are hidden: neither folders nor globs read them (as in Spark). A local file that is named itself is
    read. ``${PYTHON_STDLIB}`` stands for the folder of the running Python's standard library.
    """

    path: str = Field(min_length=1)
    pattern: str | None = None  # folders: take only file names that match, e.g. "*.py"
    exclude: tuple[str, ...] = ()  # folders: leave out files and folders with such names, e.g. ["site-packages", "test_*"]

    @field_validator("path")
    @classmethod
    def _no_password(cls, path: str) -> str:
        if has_credentials(path):
            raise ValueError("a URL with a password would be written into the dataset's manifest; give the password to the "
                             "file system by spark.conf or the environment")
        return path


class PrepareSection(KindedSection):
    """What the sections of all kinds have: these settings and the input make the dataset's version."""

    # metrics (lake/metric_facts.py) by which a model of this data may be the best, beside the loss; those that follow from it
    # (perplexity) would choose the same
    best_by: ClassVar[tuple[str, ...]] = ()

    inputs: tuple[InputPath, ...]
    deduplicate: bool = True
    rows_per_row_group: Annotated[Whole, Field(ge=1, le=2**20)] = 512

    @property
    def files(self) -> dict[str, str]:
        """Files that settings name, by the setting's key below ``prepare``: what they hold counts, not where they are."""
        return {}

    def contradictions(self) -> list[SparkringError]:
        return [SparkringError(f"prepare.inputs.{i}.exclude", "leaves files out of local folders, not of a URL",
                               "choose with pattern, or with a glob in the URL")
                for i, source in enumerate(self.inputs) if source.exclude and "://" in source.path]


class InputSource(InputPath):
    """One input of text. Text and JSON lines may be compressed with gzip, bzip2 or Zstandard; the files' content says so."""

    format: Literal["text", "jsonl", "parquet"] = "text"
    column: str = "text"  # jsonl, parquet: the field that holds the document
    delimiter: str | None = Field(default=None, min_length=1)  # text: cut files into documents here


class Split(Section):
    """How rows are divided into train and validation.

    ``hash``: by a stable hash of each document's content, so adding documents moves none.
    ``position``: each document's first part is train, its last part validation (for one long document).
    """

    kind: Literal["hash", "position"] = "hash"
    validation_fraction: Fraction = 0.05


class Tokenizer(Section):
    """``bpe`` is trained on a sample of the input unless ``path`` gives a ``tokenizer.json``."""

    kind: Literal["bpe", "characters", "bytes"] = "bpe"
    vocabulary_size: Annotated[Whole, Field(ge=257, le=2**24)] = 4096  # bpe only, end-of-text included
    sample_bytes: Bytes = 16 * 1024**2  # bpe and characters: how much text is looked at
    path: str | None = None  # a tokenizer.json in Hugging Face format


class TextPrepare(PrepareSection):
    """From text to rows of tokens."""

    best_by: ClassVar[tuple[str, ...]] = ("accuracy",)

    kind: Literal["text"] = "text"
    inputs: tuple[InputSource, ...] = Field(min_length=1)
    max_document_bytes: Count = 16 * 1024**2  # longer ones are rejected as "oversized"
    split: Split = Split()
    tokenizer: Tokenizer = Tokenizer()
    sequence_length: Annotated[Whole, Field(ge=2, le=2**20)] = 256  # tokens that a sample predicts; a row holds one more
    shard_text_bytes: Bytes = 64 * 1024**2  # text per shard, before encoding; small inputs make smaller ones

    @property
    def files(self) -> dict[str, str]:
        return {} if self.tokenizer.path is None else {"tokenizer.path": self.tokenizer.path}

    def contradictions(self) -> list[SparkringError]:
        if self.tokenizer.path is None or self.tokenizer.kind == "bpe":
            return super().contradictions()
        return [*super().contradictions(), SparkringError(
            "prepare.tokenizer.path", f"is given, but prepare.tokenizer.kind is {self.tokenizer.kind!r}", "remove one of them")]


USUAL_KIND = "text"  # of a section that does not say
PREPARE_SECTIONS: dict[str, type[PrepareSection]] = {"text": TextPrepare}
Prepare = TextPrepare
