"""The recipe: everything that decides what is learned.

Runs on: driver and ranks.
Takes:   the mapping read from ``conf/recipes/*.yaml`` (see ``load.py``).
Gives:   ``Recipe``, a frozen typed model; unknown keys are refused.

A recipe never says where or how fast: that is the platform (``platform.py``).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipelines.config.models import GptModel, Model
from pipelines.config.secrets import has_credentials
from pipelines.config.section import Bytes, Count, Fraction, Section, Whole


class InputSource(Section):
    """One input of prepare.

    ``path`` is a file, a folder (read recursively), a glob, or any URL that the Spark session can read. Text and JSON
    lines may be compressed with gzip, bzip2 or Zstandard; the files' content says so. Names that start with ``.`` or
    ``_`` are hidden: neither folders nor globs read them (as in Spark). A local file that is named itself is read.
    ``${PYTHON_STDLIB}`` stands for the folder of the running Python's standard library.
    """

    path: str = Field(min_length=1)
    format: Literal["text", "jsonl", "parquet"] = "text"
    column: str = "text"  # jsonl, parquet: the field that holds the document
    pattern: str | None = None  # folders: take only file names that match, e.g. "*.py"
    exclude: tuple[str, ...] = ()  # folders: leave out files and folders with such names, e.g. ["site-packages", "test_*"]
    delimiter: str | None = Field(default=None, min_length=1)  # text: cut files into documents here

    @field_validator("path")
    @classmethod
    def _no_password(cls, path: str) -> str:
        if has_credentials(path):
            raise ValueError("a URL with a password would be written into the dataset's manifest; give the password to the "
                             "file system by spark.conf or the environment")
        return path


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


class Prepare(Section):
    """From raw input to the immutable dataset; these settings and the input make the dataset's version."""

    inputs: tuple[InputSource, ...] = Field(min_length=1)
    max_document_bytes: Count = 16 * 1024**2  # longer ones are rejected as "oversized"
    deduplicate: bool = True
    split: Split = Split()
    tokenizer: Tokenizer = Tokenizer()
    sequence_length: Annotated[Whole, Field(ge=2, le=2**20)] = 256  # tokens that a sample predicts; a row holds one more
    rows_per_row_group: Annotated[Whole, Field(ge=1, le=2**20)] = 512
    shard_text_bytes: Bytes = 64 * 1024**2  # text per shard, before encoding; small inputs make smaller ones


class Data(Section):
    """How the dataset is read: the order of samples, on any layout."""

    num_lanes: Annotated[Whole, Field(ge=1, le=2**16)] = 16
    window_row_groups: Count = 4  # rows are shuffled in a window of this many row groups
    shuffle: bool = True


class Optimizer(Section):
    """AdamW; weight decay acts on matrices and embeddings, not on biases and gains."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0.0, le=1e30)] = 1e-3
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    epsilon: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0.0, le=1e30)] = 0.1


class Schedule(Section):
    """Linear warm-up, then cosine (or constant) to the end of training."""

    kind: Literal["cosine", "constant"] = "cosine"
    warmup_steps: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 100
    final_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1  # of the peak learning rate, at the last step


class Train(Section):
    """How the model is trained: give ``steps`` or ``epochs``, not both."""

    global_batch_samples: Count = 64
    steps: Count | None = None
    epochs: Count | None = None
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = 1337
    # true: a model whose result would depend on the layout, because it draws random numbers as it trains or mixes samples,
    # is refused; false: it is trained, and the same command gives the same result only on the same layout
    same_on_any_layout: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_wire: Literal["fp32", "fp16", "bf16"] = "fp32"  # what travels in the allreduce
    clip_norm: Annotated[float, Field(gt=0.0, le=1e30)] | None = 1.0
    evaluate_every_steps: Count = 100  # and always after the last step
    evaluation_rows: Count | None = None  # read by an evaluation: the first of the validation split; null: all
    early_stop_evaluations: Count | None = None  # stop after so many evaluations in a row without a new best; null: never
    sample_prompt: str = "\n"  # the text that the generated lines start from
    sample_tokens: Annotated[Whole, Field(ge=0, le=2**20)] = 200


class Recipe(Section):
    """The whole recipe. ``name`` names the dataset and the runs made from it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    prepare: Prepare
    data: Data = Data()
    model: Model = GptModel()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train = Train()
