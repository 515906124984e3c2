"""What the job evaluate found, in the tables and in a run's summary.

Runs on: driver.
Takes:   the results of a run's evaluations (``launch/evaluating.py``), each published whole.
Gives:   ``load_evaluations``: their rows in ``evaluations``, ``class_metrics`` and ``confusions``, each exactly once;
         ``evaluations_found``: the newest of each model, split and dataset, for the report.

Each evaluation is one file in each table, named by it, and never changes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.lake.metric_facts import METRIC_NAMES
from pipelines.lake.paths import Lake, RunFolder
from pipelines.lake.schemas import arrow_schema

EVALUATION_TABLES = ("evaluations", "class_metrics", "confusions")
_OF_ALL_ROWS = ("run_id", "step", "split", "model", "dataset_name", "dataset_version")


def load_evaluations(lake: Lake, run_id: str) -> None:
    """Brings the tables up to date; what is there already is left as it is.

    Raises:
        DataError: a result is damaged. StorageError: the tables cannot be written.
    """
    for folder in _complete(lake, run_id):
        keys = {table: f"{lake.table(table)}/{run_id}-{folder.evaluation}.parquet" for table in EVALUATION_TABLES}
        missing = [table for table, key in keys.items() if lake.store.facts(key) is None]
        if missing:
            for table, rows in rows_of_evaluation(_result(folder)).items():
                if table in missing:
                    lake.store.put(keys[table], _as_parquet(table, rows))


def rows_of_evaluation(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of a result, by table."""
    common = {name: result[name] for name in _OF_ALL_ROWS} | {"time": datetime.fromtimestamp(result["time_s"], UTC)}
    figures = {name: result.get(name) for name in ("loss", "samples", "units", "seconds", *METRIC_NAMES)}
    return {"evaluations": [{"attempt": None, **common, **figures}], "class_metrics": [common | row for row in result["classes"]],
            "confusions": [common | row for row in result["confusions"]]}


def evaluations_found(lake: Lake, run_id: str) -> list[dict[str, Any]]:
    """Results without their rows of classes; of several steps of one model the newest."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for folder in _complete(lake, run_id):
        result = {name: value for name, value in _result(folder).items() if name not in ("classes", "confusions")}
        key = tuple(result[name] for name in ("model", "split", "dataset_name", "dataset_version"))
        if key not in newest or newest[key]["time_s"] < result["time_s"]:
            newest[key] = result
    return [newest[key] for key in sorted(newest)]


def _complete(lake: Lake, run_id: str) -> list[RunFolder]:
    run = lake.run(run_id)
    folders = [run.evaluated(name) for name in lake.store.names(run.evaluations)]
    return [folder for folder in folders if lake.store.facts(folder.result) is not None]


def _result(folder: RunFolder) -> dict[str, Any]:
    place = folder.store.place(folder.result)
    try:
        result: dict[str, Any] = json.loads(folder.store.read(folder.result))
        missing = {*_OF_ALL_ROWS, "time_s", "loss", "classes", "confusions", "exhibits"} - result.keys()
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(place, f"is not a result ({error})", "remove it and evaluate again") from error
    if missing:
        raise DataError(place, f"lacks {', '.join(sorted(missing))}", "remove it and evaluate again")
    return result


def _as_parquet(table: str, rows: Sequence[dict[str, Any]]) -> bytes:
    schema = arrow_schema(table)
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
    content = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), content)
    return content.getvalue()
