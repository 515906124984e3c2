"""How a trained model is asked about rows: the section ``predict``, which only the command line sets.

Runs on: driver, and Spark's Python workers.
Takes:   overrides such as ``predict.temperature=0.5``.
Gives:   ``Predict``, a frozen typed model; unknown keys are refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.section import Count, Section, Whole

Given = Literal["parquet", "jsonl", "text", "lines", "image"]


class Predict(Section):
    """What decides the predictions, beside model and input."""

    # the input
    format: Given | None = None  # null: by the files' endings; what has none of a known kind is text
    # parquet, jsonl, tables: the one that the model is given; null: "text", or for a model of images "image", "content" or the
    # only one of bytes
    column: str | None = Field(default=None, min_length=1)
    id_column: str | None = None  # what rows are called; null: by their place in the input
    max_row_bytes: Count | None = None  # longer ones are kept as "oversized"; null: what its data's prepare rejected
    rows: Annotated[Whole, Field(ge=1, le=4096)] = 8  # that a language model computes at once
    factory: str | None = None  # of a model of the user's: its ``model.factory`` again
    # of images:
    top: Count = 1  # the likeliest classes that are told
    resize: Literal["crop", "pad", "stretch", "refuse"] | None = None  # other sizes; null: as when the model was trained
    max_image_pixels: Count | None = None  # larger ones are kept as "oversized"; null: what its data's prepare rejected
    # a language model goes on from each text instead of scoring it:
    generate: Count | None = None  # by so many tokens at most
    temperature: Annotated[float, Field(ge=0.0, le=100.0)] = 0.8  # 0: always the likeliest token
    top_k: Annotated[Whole, Field(ge=0)] = 50  # only the k likeliest tokens are drawn; 0: all
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0  # of these, the likeliest that have this probability together
    stop: str | None = Field(default=None, min_length=1)  # a text that ends where this begins
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0  # with a row's id, the seed of what is drawn for it


class PredictFile(Section):
    """The section as overrides name it."""

    predict: Predict = Predict()
