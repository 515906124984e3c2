"""What the job evaluate found is in the tables exactly once, and in the report."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.errors import DataError
from pipelines.lake.exhibits import MatrixExhibit, Picture, PicturesExhibit, TableExhibit
from pipelines.lake.findings import ClassFigures, Confusion, Findings
from pipelines.lake.paths import Lake
from pipelines.track.evaluated import EVALUATION_TABLES, evaluations_found
from pipelines.track.figures import evaluations_in_order
from pipelines.track.report.page import write_report
from pipelines.track.tables import load_run
from tests.track.conftest import WriteRun

FINDINGS = Findings(
    (ClassFigures(0, "<cat>", 5, 0.8, 0.8, 0.8), ClassFigures(1, "dog", 0, None, None, None)),
    (Confusion("<cat>", "<cat>", 4), Confusion("<cat>", "dog", 1)),
    (MatrixExhibit("What was taken for what", ("<cat>", "dog"), ("<cat>", "dog"), ((4, 1), (0, 0)), "true", "said"),
     TableExhibit("Each class", ("class", "precision"), (("<cat>", 0.8), ("dog", None))),
     PicturesExhibit("The worst mistakes", (Picture("aGk=", "said dog (91%), is <cat> (9%)", marked=True),))))


def publish(lake: Lake, name: str = "best-validation-1a2b3c4d", run_id: str = "run-1", **facts: Any) -> None:
    lake.store.put(lake.run(run_id).evaluated(name).result, json.dumps({
        "run_id": run_id, "model": "best", "step": 20, "split": "validation", "dataset_name": "gpt-demo", "dataset_version": "v1",
        "time_s": 1_790_000_000.5, "loss": 0.5, "samples": 5, "units": 5, "seconds": 0.1, "accuracy": 0.8, "macro_f1": None,
        **FINDINGS.as_dict(), **facts}))


def rows(lake: Lake, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in lake.store.names(lake.table(table)):
        if "-best-" in name or "-last-" in name:
            found += pq.read_table(io.BytesIO(lake.store.read(f"{lake.table(table)}/{name}"))).to_pylist()
    return found


def test_each_evaluation_is_in_the_tables_once_however_often_it_is_loaded(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    publish(lake)
    load_run(lake, "run-1")
    files = {table: lake.store.names(lake.table(table)) for table in EVALUATION_TABLES}
    load_run(lake, "run-1")
    for table in EVALUATION_TABLES:
        assert lake.store.names(lake.table(table)) == files[table]
    (evaluation,) = rows(lake, "evaluations")
    assert evaluation.items() >= {"run_id": "run-1", "attempt": None, "model": "best", "step": 20, "loss": 0.5, "accuracy": 0.8,
                                  "macro_f1": None, "top5_accuracy": None, "dataset_version": "v1"}.items()
    assert [(row["class_name"], row["samples"], row["recall"]) for row in rows(lake, "class_metrics")] == [
        ("<cat>", 5, 0.8), ("dog", 0, None)]
    assert [(row["true_class"], row["said_class"], row["samples"]) for row in rows(lake, "confusions")] == [
        ("<cat>", "<cat>", 4), ("<cat>", "dog", 1)]
    assert [row["step"] for row in evaluations_in_order(lake, "run-1")] == [10, 20]  # those of training, as before


def test_a_load_that_was_killed_between_two_tables_is_made_whole(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    publish(lake)
    load_run(lake, "run-1")
    (lake.root / lake.table("confusions") / "run-1-best-validation-1a2b3c4d.parquet").unlink()
    load_run(lake, "run-1")
    assert len(rows(lake, "confusions")) == 2 and len(rows(lake, "evaluations")) == 1


def test_of_one_model_the_report_shows_the_newest_evaluation_and_of_each_split_one(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    publish(lake, "best-validation-old", step=10, time_s=1.0)
    publish(lake)
    publish(lake, "last-test-x", model="last", split="test", exhibits=[])
    publish(lake, run_id="run-1-best")  # another run's
    assert [(found["model"], found["split"], found["step"]) for found in evaluations_found(lake, "run-1")] == [
        ("best", "validation", 20), ("last", "test", 20)]
    load_run(lake, "run-1")
    summary, _ = write_report(lake, "run-1")
    page = lake.store.read(lake.run("run-1").report).decode()
    for said in ("Best model on split validation", "Last model on split test", "80.0%", "&lt;cat&gt;", "The worst mistakes",
                 "data:image/png;base64,aGk=", "said dog (91%), is &lt;cat&gt; (9%)"):
        assert said in page, said
    assert "<cat>" not in page and len(summary["evaluated"]) == 2


@pytest.mark.parametrize(("content", "said"), [("{", "is not a result"), ("[]", "is not a result"), ("{}", "lacks classes, ")])
def test_a_damaged_result_is_named_with_what_to_do(lake: Lake, write_run: WriteRun, content: str, said: str) -> None:
    write_run()
    lake.store.put(lake.run("run-1").evaluated("best-validation-x").result, content)
    with pytest.raises(DataError, match=f"best-validation-x/result.json: {said}.*; remove it and evaluate again"):
        load_run(lake, "run-1")
