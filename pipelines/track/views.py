"""The lake's tables as names in a Spark session: ``spark.sql("SELECT * FROM steps")``.

Runs on: driver.
Takes:   a session and the lake.
Gives:   temporary views ``runs``, ``steps``, ``rank_steps``, ``evaluations``, ``datasets``, ``rejected``.
"""

from __future__ import annotations

from pyspark.sql import SparkSession

from pipelines.lake.paths import Lake
from pipelines.lake.schemas import TABLE_DDL


def register_tables(spark: SparkSession, lake: Lake) -> None:
    """Makes every table known by its name; one without files yet is empty and has its columns.

    A view over files is its text, so each query lists the folder again: rows loaded meanwhile are in the next query.
    """
    for name, ddl in TABLE_DDL.items():
        if any(file.endswith(".parquet") and file[0] != "_" for file in lake.store.names(lake.table(name))):
            path = lake.store.place(lake.table(name)).replace("`", "``")
            spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW {name} AS SELECT * FROM parquet.`{path}`")  # noqa: S608
        else:
            spark.createDataFrame([], ddl).createOrReplaceTempView(name)
