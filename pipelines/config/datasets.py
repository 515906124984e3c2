"""The recipe's section ``prepare``, one class per kind of data.

Runs on: driver and executors.
Takes:   the mapping under ``prepare``; without ``kind`` it is text.
Gives:   ``Prepare``, the section of any kind; ``PREPARE_SECTIONS``, each class by its kind.

What becomes of a section is its folder's in ``pipelines/prepare``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, field_validator

from pipelines.config.input_schemes import python_reads
from pipelines.config.secrets import without_password
from pipelines.config.section import Bytes, Count, Fraction, KindedSection, Section, Whole, kind_of
from pipelines.errors import SparkringError

USUAL_DOCUMENT_BYTES = 16 * 1024**2
USUAL_IMAGE_PIXELS, USUAL_IMAGE_BYTES = 89_478_485, 64 * 1024**2  # the first is Pillow's own limit


class InputPath(Section):
    """Where an input is, of any kind.

    ``path`` is a file, a folder (read recursively) or a glob, on a disk or at a URL that Python (``input_schemes.py``) or the
    Spark session can read. Names that start
    with ``.`` or ``_`` are hidden: neither folders nor globs read them (as in Spark). A local file that is named itself is
    read. ``${PYTHON_STDLIB}`` stands for the folder of the running Python's standard library.
    """

    path: str = Field(min_length=1)
    pattern: str | None = None  # folders: take only file names that match, e.g. "*.py"
    exclude: tuple[str, ...] = ()  # folders: leave out files and folders with such names, e.g. ["site-packages", "test_*"]
    _of_input: int | None = PrivateAttr(None)  # of what belongs to an input: which one

    def place(self, index: int) -> str:
        """Where in the recipe its path stands, given its index in ``PrepareSection.read_inputs``."""
        return f"prepare.inputs.{index}.path" if self._of_input is None else f"prepare.inputs.{self._of_input}.labels.path"

    @field_validator("path")
    @classmethod
    def _no_password(cls, path: str) -> str:
        return without_password(path, "the dataset's manifest", "spark.conf or the environment")


class PrepareSection(KindedSection):
    """What the sections of all kinds have: these settings and the input make the dataset's version."""

    task: ClassVar[str]  # that the data is for
    # metrics (lake/metric_facts.py) by which a model of this data may be the best, beside the loss; those that follow from it
    # (perplexity) would choose the same
    best_by: ClassVar[tuple[str, ...]] = ()

    inputs: tuple[InputPath, ...]
    deduplicate: bool = True

    @property
    def read_inputs(self) -> tuple[InputPath, ...]:
        """All that is read: the inputs, and behind them what belongs to them."""
        return self.inputs

    @property
    def files(self) -> dict[str, str]:
        """Files that settings name, by the setting's key below ``prepare``: what they hold counts, not where they are."""
        return {}

    def contradictions(self) -> list[SparkringError]:
        return [SparkringError(f"prepare.inputs.{i}.exclude", "leaves files out of local folders, not of a URL that Spark reads",
                               "choose with pattern, or with a glob in the URL")
                for i, source in enumerate(self.inputs)
                if source.exclude and "://" in source.path and not python_reads(source.path)]


RowsPerRowGroup = Annotated[Whole, Field(ge=1, le=2**20)]
ImageSide = Annotated[Whole, Field(ge=1, le=2**14)]
USUAL_IMAGE_FRACTION = 0.1
MaybeFraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class InputSource(InputPath):
    """One input of text. Text and JSON lines may be compressed with gzip, bzip2 or Zstandard; the files' content says so."""

    format: Literal["text", "jsonl", "parquet"] = "text"
    column: str = "text"  # jsonl, parquet: the field that holds the document
    delimiter: str | None = Field(default=None, min_length=1)  # text: cut files into documents here


class Split(Section):
    """How rows are divided into train, validation and, where it is wanted, test.

    ``hash``: by a stable hash of each document's content, so adding documents moves none.
    ``position``: each document's first part is train, then validation, its last part test (for one long document).
    """

    kind: Literal["hash", "position"] = "hash"
    validation_fraction: Fraction = 0.05
    test_fraction: MaybeFraction = 0.0


class Tokenizer(Section):
    """``bpe`` is trained on a sample of the input unless ``path`` gives a ``tokenizer.json``."""

    kind: Literal["bpe", "characters", "bytes"] = "bpe"
    vocabulary_size: Annotated[Whole, Field(ge=257, le=2**24)] = 4096  # bpe only, end-of-text included
    sample_bytes: Bytes = 16 * 1024**2  # bpe and characters: how much text is looked at
    path: str | None = None  # a tokenizer.json in Hugging Face format, at a path or URL

    @field_validator("path")
    @classmethod
    def _no_password(cls, path: str | None) -> str | None:
        return path if path is None else without_password(path, "the run's files", "the environment")


class TextPrepare(PrepareSection):
    """From text to rows of tokens."""

    task: ClassVar[str] = "language"
    best_by: ClassVar[tuple[str, ...]] = ("accuracy",)

    kind: Literal["text"] = "text"
    inputs: tuple[InputSource, ...] = Field(min_length=1)
    max_document_bytes: Count = USUAL_DOCUMENT_BYTES  # longer ones are rejected as "oversized"
    split: Split = Split()
    tokenizer: Tokenizer = Tokenizer()
    sequence_length: Annotated[Whole, Field(ge=2, le=2**20)] = 256  # tokens that a sample predicts; a row holds one more
    rows_per_row_group: RowsPerRowGroup = 512
    shard_text_bytes: Bytes = 64 * 1024**2  # text per shard, before encoding; small inputs make smaller ones

    @property
    def files(self) -> dict[str, str]:
        return {} if self.tokenizer.path is None else {"tokenizer.path": self.tokenizer.path}

    def contradictions(self) -> list[SparkringError]:
        faults = [*super().contradictions(), *_too_much(self.split.validation_fraction, self.split.test_fraction)]
        if self.tokenizer.path is not None and self.tokenizer.kind != "bpe":
            faults.append(SparkringError("prepare.tokenizer.path", f"is given, but prepare.tokenizer.kind is "
                                         f"{self.tokenizer.kind!r}", "remove one of them"))
        return faults


def _too_much(validation_fraction: float, test_fraction: float) -> list[SparkringError]:
    if validation_fraction + test_fraction < 1.0:
        return []
    return [SparkringError("prepare.split", f"validation_fraction {validation_fraction} and test_fraction {test_fraction} leave "
                           "nothing to train on", "their sum has to be below 1")]


class LabelTable(InputPath):
    """The labels of image files: a row for each, with its name below the input, or that without its ending."""

    format: Literal["auto", "csv", "jsonl", "parquet"] = "auto"  # auto: as the files' names end
    image: str = "image"  # the column of names
    label: str = "label"


class ImageInput(InputPath):
    """One input of images, and where their labels are."""

    # auto: found from the files. idx: MNIST's files, images and their labels. folder: image files (PNG, JPEG, WebP).
    # table: Parquet with a column of images (files' bytes, Spark's images). petastorm: a dataset of petastorm's
    format: Literal["auto", "idx", "folder", "table", "petastorm"] = "auto"
    labels: LabelTable | None = None  # folder: where the labels are, instead of the first folder
    image: str | None = None  # table, petastorm: the column of images; null: found
    label: str = "label"  # table, petastorm: the column of labels


ClassName = Annotated[str, Field(pattern=r"\S")]


class ImageSplit(Section):
    """How images are divided into train, validation and, where it is wanted, test.

    ``hash``: by a hash of the pixels: by fractions (adding images moves none), or exact numbers of rows.
    ``folder``: by the first part of the file's name below the input: ``train``, ``validation`` (``val``, ``valid``), ``test``
    (and ``t10k``, as MNIST's files are called); fractions are taken out of train.
    ``column``: by a column of the tables, labels' or images', in the same words.
    """

    kind: Literal["hash", "folder", "column"] = "hash"
    column: str = "split"
    validation_fraction: MaybeFraction | None = None  # null: 0.1 of all images where nothing else says which they are
    test_fraction: MaybeFraction = 0.0
    validation_rows: Annotated[Whole, Field(ge=1, le=2**40)] | None = None  # hash: exactly so many, instead of a fraction
    test_rows: Annotated[Whole, Field(ge=0, le=2**40)] = 0

    @property
    def by_rows(self) -> bool:
        return self.validation_rows is not None

    @property
    def fractions(self) -> tuple[float, float]:
        """Of validation and test, by hash."""
        usual = USUAL_IMAGE_FRACTION if self.kind == "hash" and not self.by_rows else 0.0
        return usual if self.validation_fraction is None else self.validation_fraction, self.test_fraction

    @property
    def takes_test(self) -> bool:
        """Whether the recipe takes one from the images; an input's folders may say one too."""
        return self.test_fraction > 0 or self.test_rows > 0

    def contradictions(self) -> list[SparkringError]:
        faults = _too_much(*self.fractions)
        if self.by_rows and (self.validation_fraction is not None or self.test_fraction):
            faults.append(SparkringError("prepare.split", "both numbers of rows and fractions are given", "give one of them"))
        if self.kind != "hash" and (self.by_rows or self.test_rows):
            faults.append(SparkringError("prepare.split", f"numbers of rows are given, but kind is {self.kind!r}",
                                         "set kind: hash, or leave them out"))
        if self.test_rows and not self.by_rows:
            faults.append(SparkringError("prepare.split.test_rows", "is given without validation_rows", "give both"))
        if self.kind == "hash" and self.validation_fraction == 0:
            faults.append(SparkringError("prepare.split.validation_fraction", "0: nothing would be validated",
                                         "give more, or leave it out"))
        return faults


class ImagePrepare(PrepareSection):
    """From images with labels to rows of pixels, all of one size."""

    task: ClassVar[str] = "classification"
    best_by: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "calibration_error")

    kind: Literal["images"]
    inputs: tuple[ImageInput, ...] = Field(min_length=1)
    size: tuple[ImageSide, ImageSide] | None = None  # height, width; null: the images have one size
    resize: Literal["crop", "pad", "stretch", "refuse"] = "crop"  # of images of another size
    channels: Literal[1, 3] | None = None  # gray or colour; null: the images have one number of channels
    classes: tuple[ClassName, ...] | None = Field(default=None, min_length=2)  # in this order; null: those found, sorted
    max_image_pixels: Count = USUAL_IMAGE_PIXELS  # more are rejected as "oversized"
    max_image_bytes: Bytes = USUAL_IMAGE_BYTES
    split: ImageSplit = ImageSplit()
    storage: Literal["pixels", "encoded"] = "pixels"  # encoded: a shard holds image files, which ranks decode at every reading
    rows_per_row_group: RowsPerRowGroup | None = None  # null: about 1 MiB of pixels, 16 to 512 rows
    shard_bytes: Bytes = 64 * 1024**2  # of pixels (encoded: of the input's files) in a shard; small inputs make smaller ones

    @property
    def read_inputs(self) -> tuple[InputPath, ...]:
        tables = [(index, source.labels) for index, source in enumerate(self.inputs) if source.labels is not None]
        return (*self.inputs, *(_belonging(table, index) for index, table in tables))

    @property
    def split_column(self) -> str | None:
        """Of tables that say the split of each image."""
        return self.split.column if self.split.kind == "column" else None

    def label_table(self, index: int) -> int | None:
        """The place in ``read_inputs`` of an input's table of labels."""
        owners = [owner for owner, source in enumerate(self.inputs) if source.labels is not None]
        return len(self.inputs) + owners.index(index) if index in owners else None

    def contradictions(self) -> list[SparkringError]:
        faults = [*super().contradictions(), *self.split.contradictions()]
        faults += [SparkringError(f"prepare.inputs.{index}.labels", f"are given, but format is {source.format!r}, which has its "
                                  "own", "leave one of them out")
                   for index, source in enumerate(self.inputs) if source.labels is not None
                   and source.format not in ("auto", "folder")]
        faults += [SparkringError("prepare.split.kind", f"'folder', but inputs.{index} is a {source.format}, whose rows lie in "
                                  "no folder", "use column, or hash")
                   for index, source in enumerate(self.inputs)
                   if self.split.kind == "folder" and source.format in ("table", "petastorm")]
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            faults.append(SparkringError("prepare.classes", "names a class twice", "name each once"))
        return faults


def _belonging(table: LabelTable, index: int) -> LabelTable:
    own = table.model_copy()
    own._of_input = index
    return own


USUAL_KIND = "text"  # of a section that does not say
PREPARE_SECTIONS: dict[str, type[PrepareSection]] = {"text": TextPrepare, "images": ImagePrepare}
Prepare = Annotated[Annotated[TextPrepare, Tag("text")] | Annotated[ImagePrepare, Tag("images")],
                    Discriminator(kind_of(USUAL_KIND))]
