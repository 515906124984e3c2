"""A model as a function over Spark's columns and DataFrames: torch in the workers alone, loaded once in each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.errors import CheckpointError, ConfigError
from pipelines.lake.store import FolderStore
from pipelines.models.exported_model import load_model
from pipelines.predict.contracts import contract_of
from pipelines.predict.predictor import predictor
from pipelines.predict.text_answers import TextAnswers
from tests.predict.test_batch_predictions import export, log_likelihood, texts

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "best"
    export(folder)
    return folder


def test_a_column_of_texts_becomes_a_column_of_scores(spark, folder):
    given = [*texts(20), None, " "]
    rows = [(f"row {i}", text) for i, text in enumerate(given)]
    frame = spark.createDataFrame(rows, "id STRING, text STRING").repartition(3)
    score = predictor(folder)
    found = {row.id: row.said for row in frame.withColumn("said", score("text")).select("id", "said").collect()}
    model = load_model(folder).model
    for i in range(20):
        assert found[f"row {i}"].log_likelihood == pytest.approx(log_likelihood(model, given[i]), rel=1e-4)
        assert found[f"row {i}"].reason is None
    for i in (20, 21):
        assert (found[f"row {i}"].reason, found[f"row {i}"].tokens, found[f"row {i}"].bits_per_byte) == ("empty", None, None)


def test_a_column_and_map_in_arrow_write_the_same_texts_on_any_partitioning(spark, folder):
    rows = [(i, text) for i, text in enumerate(texts(30))]
    write = predictor(str(folder), generate=8, temperature=1.5, seed=3)
    found: list[dict[str, str]] = []
    for partitions in (1, 4):
        frame = spark.createDataFrame(rows, "id INT, text STRING").repartition(partitions)
        by_column = frame.select("id", write("text", "id").alias("said")).collect()
        in_arrow = frame.select("id", "text").mapInArrow(write.in_arrow, write.schema).collect()
        found += [{str(row.id): row.said.continuation for row in by_column}, {row.id: row.continuation for row in in_arrow}]
    assert found[0] == found[1] == found[2] == found[3] and len(set(found[0].values())) == 30


def test_a_frame_without_the_columns_and_a_wrong_setting_are_refused(spark, folder, tmp_path):
    score = predictor(folder)
    with pytest.raises(Exception, match="there is no column 'id', but body; select the columns id and text"):
        spark.createDataFrame([("x",)], "body STRING").mapInArrow(score.in_arrow, score.schema).collect()
    with pytest.raises(ConfigError, match="top_p: 3 is not accepted"):
        predictor(folder, top_p=3)
    with pytest.raises(CheckpointError, match="holds no model.safetensors; give the folder of an exported model"):
        predictor(tmp_path)


def test_a_worker_loads_the_model_once_maps_it_and_computes_on_its_own_cores(spark, folder):
    score = predictor(folder)

    def look(batches):
        import importlib

        import pyarrow as pa

        from pipelines.predict.worker_model import _answers as loads
        for batch in batches:
            for _ in score.in_arrow([batch]):
                pass
        mapped = f"{folder}/model.safetensors" in Path("/proc/self/maps").read_text()
        yield pa.RecordBatch.from_pydict({"pid": [os.getpid()], "loads": [loads.cache_info().misses], "mapped": [mapped],
                                          "threads": [importlib.import_module("torch").get_num_threads()]})

    frame = spark.createDataFrame([(str(i), text) for i, text in enumerate(texts(40))], "id STRING, text STRING").repartition(8)
    seen = frame.mapInArrow(look, "pid BIGINT, loads BIGINT, mapped BOOLEAN, threads BIGINT").collect()
    assert len(seen) == 8 and all(row.mapped for row in seen)
    assert {row.threads for row in seen} == {1}
    assert len({(row.pid, row.loads) for row in seen}) == len({row.pid for row in seen}) < 8  # none in a worker's later tasks


def test_the_driver_never_imports_torch(folder):
    code = ("import sys; from pipelines.predict.predictor import predictor; import pipelines.flow.flow; "
            f"predictor({str(folder)!r}, generate=3); assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_padding_and_company_do_not_change_a_score(folder):
    answers = TextAnswers(contract_of(FolderStore(folder), predictor(folder).contract.settings))
    given = [text.encode() for text in texts(17)]
    together = answers.of([""] * 17, given, [None] * 17)["log_likelihood"]
    alone = [answers.of([""], [text], [None])["log_likelihood"][0] for text in given]
    assert torch.allclose(torch.tensor(together), torch.tensor(alone), rtol=1e-5)
