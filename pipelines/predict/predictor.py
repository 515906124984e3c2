"""A trained model as a function over Spark's columns and DataFrames, for notebooks.

Runs on: driver (makes it, without torch), Spark's Python workers (run it).
Takes:   the folder of an exported model.
Gives:   ``predictor``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pydantic import ValidationError
from pyspark.sql import Column
from pyspark.sql.functions import col, lit, sha2
from pyspark.sql.pandas.functions import pandas_udf

from pipelines.config.predictions import Predict
from pipelines.config.wording import faults_of
from pipelines.errors import ConfigError, DataError
from pipelines.lake.stores import store_at
from pipelines.predict.contracts import Contract, contract_of
from pipelines.predict.records import part_schema
from pipelines.predict.worker_model import answers_of
from pipelines.prepare.images.image_values import numbers_of


@dataclass(frozen=True)
class Predictor:
    """Called with a column, a column of its answers; ``in_arrow`` and ``schema`` are for ``mapInArrow``.

    Every answer has a ``reason`` where the row could not be predicted, else null. Each Python worker loads the model once.
    """

    contract: Contract

    @property
    def columns(self) -> str:
        """Of an answer, as Spark's DDL."""
        return self.contract.columns

    @property
    def schema(self) -> str:
        """Of what ``in_arrow`` gives: ``id`` and the answer."""
        return f"id STRING, {self.contract.columns}"

    def __call__(self, column: str | Column, id_column: str | Column | None = None) -> Column:
        """A struct for each value.

        Args:
            id_column: what a row is called, from which its draws come; without it, the value itself.
        """
        contract = self.contract

        def answer(batches: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
            for values, ids in batches:
                yield _answers(contract, [str(each) for each in ids], _listed(values)).drop(["id"]).to_pandas()

        values = col(column) if isinstance(column, str) else column
        names = col(id_column) if isinstance(id_column, str) else id_column
        if names is None:
            names = lit("") if contract.settings.generate is None else sha2(values.cast("binary"), 256)
        return pandas_udf(answer, self.columns)(values, names.cast("string"))  # type: ignore[call-overload]

    def in_arrow(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Of a DataFrame with the columns ``id`` and the one that the settings name (``text``).

        Raises:
            DataError: it has other columns.
        """
        for batch in batches:
            missing = [name for name in ("id", self.contract.column) if name not in batch.schema.names]
            if missing:
                raise DataError("mapInArrow", f"there is no column {missing[0]!r}, but {', '.join(batch.schema.names)}",
                                f"select the columns id and {self.contract.column}")
            ids = [str(value) for value in batch.column("id").to_pylist()]
            yield from _answers(self.contract, ids, numbers_of(batch.column(self.contract.column))).to_batches()


def predictor(model_folder: str | Path, **settings: Any) -> Predictor:
    """
    Args:
        model_folder: a path or URL that driver and executors see. settings: of the section ``predict``
            (``config/predictions.py``), such as ``generate=20`` or ``temperature=0.5``.
    Raises:
        CheckpointError: it is no exported model, or one that cannot be asked. ConfigError: a setting is wrong.
    """
    try:
        asked = Predict(**settings)
    except ValidationError as error:
        raise ConfigError(faults_of(error, Predict, lambda _: "predictor()")) from error
    return Predictor(contract_of(store_at(model_folder), asked))


def _answers(contract: Contract, ids: list[str], values: list[Any]) -> pa.Table:
    plain = (bytes(value) if isinstance(value, bytearray) else value for value in values)
    checked = [contract.asked.checked(value, contract.max_bytes) for value in plain]
    columns = answers_of(contract).of(ids, [content for content, _ in checked], [reason for _, reason in checked])
    return pa.Table.from_pydict({"id": ids, **columns}, part_schema(contract))


def _listed(values: pd.Series | pd.DataFrame) -> list[Any]:
    """The rows of a column. A struct comes as a DataFrame, whose whole numbers are floats where a row has none."""
    if isinstance(values, pd.Series):
        return list(values.tolist())
    return [{str(name): None if value != value else int(value) if isinstance(value, float) else value
             for name, value in row.items()} for row in values.to_dict("records")]
