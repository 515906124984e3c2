"""Columns of the published tables, each written here and nowhere else: the contract with their readers.

Runs on: driver, executors and ranks.
Takes:   nothing.
Gives:   Spark DDL by table name, and the Arrow schema that it says. Suffixes say what is measured; ``time`` columns are UTC
         timestamps. ``units`` are what a task's loss is summed over: ``unit`` of the run or the dataset names it ("tokens").

    runs         one row per run
    steps        one row per run and step: the whole job's figures
    rank_steps   one row per run, step and rank: where that rank's time went. units and samples are those whose loss the
                 rank computed; communication_s = pipeline_wait_s (for other segments) + averaging_s (for other replicas)
    evaluations  one row per run, step and split, as training went on (model is null); and one per model, split and dataset
                 that the job evaluate was asked for (attempt is null). The metrics: ``metric_facts.py``
    class_metrics  one row per row of evaluations that has a model, and class
    confusions   one row per such row and pair of classes, one true and one said, that a sample has
    datasets     one row per dataset version
    rejected     one row per record that prepare refused
"""

from __future__ import annotations

import pyarrow as pa

TABLE_DDL: dict[str, str] = {
    "runs": (
        "run_id STRING, recipe_name STRING, recipe_hash STRING, dataset_name STRING, dataset_version STRING, "
        "status STRING, exit_code INT, error STRING, num_replicas INT, num_segments INT, device STRING, precision STRING, "
        "parameters BIGINT, planned_steps INT, last_step INT, attempts INT, train_loss DOUBLE, validation_loss DOUBLE, "
        "unit STRING, units BIGINT, units_per_s DOUBLE, started TIMESTAMP, ended TIMESTAMP, seconds DOUBLE, "
        "placement ARRAY<STRING>, command STRING, environment STRING"),
    "steps": (
        "run_id STRING, attempt INT, step INT, epoch INT, loss DOUBLE, learning_rate DOUBLE, gradient_norm DOUBLE, "
        "units BIGINT, samples BIGINT, seconds DOUBLE, time TIMESTAMP"),
    "rank_steps": (
        "run_id STRING, attempt INT, step INT, rank INT, replica_index INT, segment_index INT, units BIGINT, "
        "samples BIGINT, seconds DOUBLE, data_wait_s DOUBLE, compute_s DOUBLE, communication_s DOUBLE, "
        "pipeline_wait_s DOUBLE, averaging_s DOUBLE, memory_bytes BIGINT, time TIMESTAMP"),
    "evaluations": (
        "run_id STRING, attempt INT, step INT, split STRING, loss DOUBLE, samples BIGINT, units BIGINT, seconds DOUBLE, "
        "perplexity DOUBLE, bits_per_byte DOUBLE, accuracy DOUBLE, top5_accuracy DOUBLE, macro_precision DOUBLE, "
        "macro_recall DOUBLE, macro_f1 DOUBLE, calibration_error DOUBLE, model STRING, dataset_name STRING, "
        "dataset_version STRING, time TIMESTAMP"),
    "class_metrics": (
        "run_id STRING, step INT, split STRING, model STRING, dataset_name STRING, dataset_version STRING, class_index INT, "
        "class_name STRING, samples BIGINT, precision DOUBLE, recall DOUBLE, f1 DOUBLE, time TIMESTAMP"),
    "confusions": (
        "run_id STRING, step INT, split STRING, model STRING, dataset_name STRING, dataset_version STRING, true_class STRING, "
        "said_class STRING, samples BIGINT, time TIMESTAMP"),
    "datasets": (
        "dataset_name STRING, dataset_version STRING, created TIMESTAMP, task STRING, unit STRING, "
        "train_rows BIGINT, validation_rows BIGINT, test_rows BIGINT, train_units BIGINT, validation_units BIGINT, "
        "test_units BIGINT, input_records BIGINT, rejected_records BIGINT, shards INT, bytes BIGINT, "
        "sizes MAP<STRING,BIGINT>, baselines MAP<STRING,DOUBLE>, "
        "input_fingerprint STRING, recipe_hash STRING, path STRING"),
    "rejected": (
        "dataset_name STRING, dataset_version STRING, source STRING, position BIGINT, reason STRING, detail STRING, "
        "bytes BIGINT"),
}
TABLE_NAMES = tuple(TABLE_DDL)
_ARROW_TYPES = {"STRING": pa.string(), "INT": pa.int32(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(),
                "TIMESTAMP": pa.timestamp("us", tz="UTC"), "ARRAY<STRING>": pa.list_(pa.string()),
                "ARRAY<DOUBLE>": pa.list_(pa.float64()),
                "MAP<STRING,BIGINT>": pa.map_(pa.string(), pa.int64()), "MAP<STRING,DOUBLE>": pa.map_(pa.string(), pa.float64())}


def arrow_schema(table: str) -> pa.Schema:
    """The table's columns, as its DDL says."""
    return schema_of_ddl(TABLE_DDL[table])


def schema_of_ddl(ddl: str) -> pa.Schema:
    columns = (column.split(" ") for column in ddl.split(", "))
    return pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in columns])
