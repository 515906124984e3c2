"""A trained model over data of any size: done where it is missing, published.

Runs on: driver (counts), Spark's Python workers (answer).
Takes:   a ``PredictPlan``.
Gives:   parts in the output folder; the totals of its marker.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.functions import col

from pipelines.errors import DataError, SparkringError, error_of
from pipelines.predict.answered import OutputFolder, range_name
from pipelines.predict.array_column import ArrayColumn
from pipelines.predict.contracts import Contract
from pipelines.predict.given_rows import PLACE, GivenRows, Look, is_none_of, look_at, rows_of
from pipelines.predict.predict_plan import PredictPlan, refuse_other_input
from pipelines.predict.records import RecordReader, part_schema
from pipelines.predict.worker_model import answers_of
from pipelines.prepare.remote import java_cause
from pipelines.prepare.spark_job import arrow_batches, spark_settings
from pipelines.prepare.workers import lighten_worker

ANSWERED_ROWS = 256  # given to the model's module at once, which makes batches of them
PART_S = 10.0  # answers are written at the next border of ranges once a part has taken so long
TASKS_PER_SLOT = 4  # at most, of a table
FILE_COST_BYTES = 4096  # opening a file costs about as much as reading this
SHOWN_PLAN = 10_000  # characters that Spark keeps of a query, in which are all answered files
OUTCOME_DDL = "fault STRING"


def predict_planned(spark: SparkSession, plan: PredictPlan, lake_root: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Answers what is missing; the totals of all.

    Raises:
        DataError: the input cannot be read, is not what the model takes, or has changed; the output is another one's.
        CheckpointError, ConfigError: the model cannot be used. StorageError: disk full, read-only.
    """
    look = plan.look or look_at(plan.input, plan.contract.settings, lake_root, spark)
    refuse_other_input(plan.contract, look)
    given = rows_of(spark, look, plan.contract)
    identity = json.loads(json.dumps(plan.identity(look)))
    with plan.output.claim() as claim:
        if (totals := plan.output.totals(identity)) is not None:
            return totals
        plan.output.begin(identity)
        done = frozenset(name for part in plan.output.parts() for name in part.ranges)
        if done:
            report(f"predict: {len(done):,} ranges of the input have been answered before")
        with _cut_alike(spark, look), arrow_batches(spark), _worker_errors():
            _answer(given, plan, look, done)
        again = look_at(plan.input, plan.contract.settings, lake_root, None if plan.look else spark)
        if again != look:
            raise DataError(PLACE, f"{look.path}: input changed while it was read",
                            "give another --output when nothing writes to it")
        if not plan.output.parts():
            plan.output.write(part_schema(plan.contract).empty_table(), (), ())
        claim.check()
        return plan.output.finish(identity)


def _answer(source: GivenRows, plan: PredictPlan, look: Look, done: frozenset[str]) -> None:
    # whole files that are answered are not opened again; of longer ones the answered ranges are read and left
    complete = [name.partition(" ")[2] for name in done if name.startswith("0 ")] if look.format in ("text", "image") else []
    given = source.rows
    if complete:
        given = given.where(is_none_of(col("file"), complete))
    if look.format in ("parquet", "table"):
        # a range without the middle of a row group has no rows, and a Python task costs some 50 ms
        given = given.coalesce(TASKS_PER_SLOT * given.sparkSession.sparkContext.defaultParallelism)
    contract, output, form, arrays = plan.contract, plan.output, look.format, source.arrays

    def answer(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        reader = RecordReader(contract, form, None if arrays is None else ArrayColumn(PLACE, arrays))
        fault = answer_partition(batches, contract, output, reader, done)
        lighten_worker()
        yield pa.RecordBatch.from_pydict({"fault": [fault]}, pa.schema([("fault", pa.string())]))

    for row in given.mapInArrow(answer, OUTCOME_DDL).collect():
        if row.fault:
            fault = json.loads(row.fault)
            raise error_of(fault["exit_code"], fault["place"], fault["problem"], fault["remedy"])


class _Part:
    """Answers of a Spark task that are not written yet, of whole ranges once the next one begins."""

    def __init__(self, output: OutputFolder, schema: pa.Schema) -> None:
        self._output, self._schema = output, schema
        self._begin()

    def _begin(self) -> None:
        self._tables: list[pa.Table] = []
        self._ranges: set[str] = set()
        self._began_s = time.monotonic()

    def add(self, columns: Mapping[str, Sequence[Any]], ranges: Iterable[str]) -> None:
        self._tables.append(pa.Table.from_pydict(columns, self._schema))
        self._ranges.update(ranges)

    def write_if_due(self, next_range: str) -> None:
        """What took long is not lost when the task is: ranges come one after the other, so a new one ends those before."""
        if next_range not in self._ranges and time.monotonic() - self._began_s >= PART_S:
            self.write()

    def write(self) -> None:
        if self._ranges:
            table = pa.concat_tables(self._tables)
            self._output.write(table, self._ranges, table["reason"].drop_null().to_pylist())
        self._begin()


def answer_partition(batches: Iterable[pa.RecordBatch], contract: Contract, output: OutputFolder, reader: RecordReader,
                     done: frozenset[str]) -> str:
    """Writes the rows of a Spark task, in one part or more; an error that a user can meet, as JSON, or nothing."""
    try:
        part = _Part(output, part_schema(contract))
        for batch in batches:
            for at in range(0, len(batch), ANSWERED_ROWS):
                records = reader.records(batch.slice(at, ANSWERED_ROWS))
                some = [record for record in records if range_name(record.file, record.start) not in done]
                if not some:
                    continue
                part.write_if_due(range_name(some[0].file, some[0].start))
                ids = [record.id for record in some]
                columns = answers_of(contract).of(ids, [record.content for record in some], [record.reason for record in some])
                part.add({"id": ids, **columns}, {range_name(record.file, record.start) for record in some})
        part.write()
        return ""
    except SparkringError as error:  # an exception would reach the driver as a Java trace, after retries
        return json.dumps({"exit_code": error.exit_code, "place": error.place, "problem": error.problem, "remedy": error.remedy})


@contextmanager
def _cut_alike(spark: SparkSession, look: Look) -> Iterator[None]:
    """Files are cut by their bytes alone, whatever the cluster, and long queries are not kept as text; the session's own settings
    come back afterwards."""
    with spark_settings(spark, {"spark.sql.files.maxPartitionBytes": str(look.split_bytes),
                                "spark.sql.files.minPartitionNum": "1",
                                "spark.sql.files.openCostInBytes": str(FILE_COST_BYTES),
                                "spark.sql.maxPlanStringLength": str(SHOWN_PLAN)}):
        yield


@contextmanager
def _worker_errors() -> Iterator[None]:
    """A failed Spark job without its Java stack trace."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        raise SparkringError("predict", f"the Spark job failed: {java_cause(error)}", "see Spark's own log") from error
