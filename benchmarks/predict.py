"""Batch prediction: rows per second on two cores, against Spark's ``predict_batch_udf`` with the same model.

Runs on: driver.
Takes:   the IDX files of MNIST's digits (``mnist.digits``).
Gives:   ``measure``: the classic convolutional network, and a model that is one linear layer, where what surrounds the model is
         all there is to measure.

Both sides answer the same Parquet table of ids and pixels in one warm session with one thread a worker, and write label and
probability as Parquet. Ours is the whole job: it also fingerprints the input, checks every value, and gives a reason for rows
that cannot be used. The peer gets the batch size that serves it best.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import DoubleType, StringType, StructField, StructType
from torch import nn

from benchmarks.mnist import digit_images
from benchmarks.results import Figure
from pipelines.config import Platform
from pipelines.config.models import Model
from pipelines.config.predictions import Predict
from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore
from pipelines.models.build import build_model
from pipelines.models.cnn.settings import CnnModel
from pipelines.models.export import save_model
from pipelines.models.factory.settings import FactoryModel
from pipelines.models.layered import LayeredModel
from pipelines.predict.batch_predictions import predict_planned
from pipelines.predict.predict_plan import PredictRequest, plan_predict
from pipelines.prepare.images.image_rows import classification_facts
from pipelines.spark.session import spark_session

COMMAND = "python -m benchmarks predict"
ROUNDS, FILES = 5, 4
LINEAR = "benchmarks.predict:linear"
MODELS: dict[str, tuple[str, Model, int, float]] = {  # by run: name, section, copies of the digits, target
    "cnn": ("mnist-cnn", CnnModel(), 1, 1.0), "linear": ("one linear layer", FactoryModel(factory=LINEAR), 10, 1.2)}
BATCHES = (64, 1024)  # of the peer
CLASSES = tuple(map(str, range(10)))
MEAN, DEVIATION, SIDE = 0.1307, 0.3081, 28
ANSWER = StructType([StructField("label", StringType()), StructField("probability", DoubleType())])


def linear(channels: int, height: int, width: int, num_classes: int) -> LayeredModel:
    return LayeredModel([("all", nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes)))])


def write_table(folder: Path, copies: int) -> int:
    """The digits as a table of several files; its rows."""
    images = np.tile(digit_images(), (copies, 1))
    folder.mkdir()
    for i, part in enumerate(np.array_split(images, FILES)):
        offsets = pa.array(np.arange(0, part.size + 1, SIDE * SIDE, dtype=np.int32))
        pixels = pa.ListArray.from_arrays(offsets, pa.array(part.astype(np.int16).ravel()))  # Spark has no uint8
        pq.write_table(pa.table({"id": [f"{i}-{j}" for j in range(len(part))], "image": pixels}), folder / f"{i}.parquet")
    return len(images)


def export(lake: Lake, run_id: str, section: Model) -> Path:
    """A model with its initial values, as the best of a run."""
    task = classification_facts(channels=1, height=SIDE, width=SIDE, classes=CLASSES, mean=[MEAN], deviation=[DEVIATION],
                                class_counts=[1] * len(CLASSES))
    model = build_model(section, task.sizes, seed=1)
    folder = lake.root / lake.model(run_id, "best")
    save_model(FolderStore(folder), model.unique_state().items(), model.specs(), section, task=task, files={}, notes={})
    return folder


def ours_s(spark: SparkSession, lake: Lake, run_id: str, table: Path, output: Path) -> float:
    settings = Predict(id_column="id", column="image", factory=LINEAR if run_id == "linear" else None)
    began = time.perf_counter()
    plan = plan_predict(lake, run_id, PredictRequest("best", str(table), str(output), settings))
    totals = predict_planned(spark, plan, lake.root, lambda _: None)
    took = time.perf_counter() - began
    if totals["reasons"]:
        raise RuntimeError(f"not all rows were predicted: {totals}")
    return took


def peer_s(spark: SparkSession, model: Path, table: Path, output: Path, batch: int) -> float:
    """As its documentation says: the model is loaded once a worker, values come as one array."""
    def load() -> Callable[[NDArray[np.int16]], dict[str, NDArray[Any]]]:
        import torch

        from pipelines.models.exported_model import load_model
        torch.set_num_threads(1)
        loaded = load_model(model, factory=LINEAR).model
        classes = np.array(CLASSES)

        def answer(images: NDArray[np.int16]) -> dict[str, NDArray[Any]]:
            inputs_BCHW = torch.from_numpy(images).float().div_(255.0).sub_(MEAN).div_(DEVIATION)
            with torch.inference_mode():
                probability_B, class_B = loaded(inputs_BCHW).softmax(-1).max(-1)
            return {"label": classes[class_B.numpy()], "probability": probability_B.double().numpy()}

        return answer

    answered = predict_batch_udf(load, return_type=ANSWER, batch_size=batch, input_tensor_shapes=[[1, SIDE, SIDE]])
    began = time.perf_counter()
    given = spark.read.parquet(str(table))
    given.select("id", answered("image").alias("answer")).select("id", "answer.*").write.parquet(str(output))
    return time.perf_counter() - began


def same_answers(ours: Path, peer: Path) -> None:
    """Raises RuntimeError where a label or a probability is another one."""
    def answers(folder: Path) -> pa.Table:
        files = [pq.read_table(file, columns=["id", "label", "probability"]) for file in folder.glob("part-*.parquet")]
        return pa.concat_tables(files).sort_by("id")

    mine, theirs = answers(ours), answers(peer)
    if mine["id"] != theirs["id"] or mine["label"] != theirs["label"] or not np.allclose(
            mine["probability"], theirs["probability"], atol=1e-5):
        raise RuntimeError("the two sides answer differently")


def measure() -> list[Figure]:
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    figures = []
    with tempfile.TemporaryDirectory() as top, spark_session(
            Platform.model_validate({"spark": {"master": "local[2]"}}), "bench-predict") as spark:
        lake = Lake.at(Path(top) / "lake")
        for run_id, (name, section, copies, target) in MODELS.items():
            table, model = Path(top) / f"{run_id}-table", export(lake, run_id, section)
            rows = write_table(table, copies)
            seen: dict[str, list[float]] = {"ours": [], **{f"peer, {batch} at once": [] for batch in BATCHES}}
            for i in range(ROUNDS + 1):  # the first one warms workers and files, and is checked
                outputs = {kind: Path(top) / f"{run_id}-{i}-{j}" for j, kind in enumerate(seen)}
                took = {"ours": ours_s(spark, lake, run_id, table, outputs["ours"])}
                for kind, batch in zip(list(seen)[1:], BATCHES, strict=True):
                    took[kind] = peer_s(spark, model, table, outputs[kind], batch)
                    if i == 0:
                        same_answers(outputs["ours"], outputs[kind])
                for kind, seconds in took.items():
                    if i:
                        seen[kind].append(rows / seconds)
                print(f"{name}, round {i} of {ROUNDS}: "
                      + ", ".join(f"{kind} {rows / seconds:,.0f} rows/s" for kind, seconds in took.items()))
            middle = {kind: statistics.median(rates) for kind, rates in seen.items()}
            peer = max(list(seen)[1:], key=lambda kind: middle[kind])
            figures.append(Figure(f"predict, {name}, vs predict_batch_udf", middle["ours"], middle[peer], "rows/s", target,
                                  COMMAND, note=f"{rows:,} rows, local[2], medians of {ROUNDS} alternated rounds; {peer}"))
    return figures
