"""A model of images is given what its training rows were made of, and says of every image its classes or why not."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipelines.config.predictions import Predict
from pipelines.errors import ConfigError, DataError
from pipelines.feed.batches import Batch
from pipelines.lake.store import FolderStore
from pipelines.models.build import build_model
from pipelines.models.cnn.settings import CnnModel
from pipelines.models.export import save_model
from pipelines.predict.contracts import contract_of
from pipelines.predict.image_answers import ImageAnswers
from pipelines.predict.predictor import predictor
from pipelines.prepare.images.decoding import ImageRule, ImageShape
from pipelines.prepare.images.image_records import Found, ImageRecords
from pipelines.prepare.images.image_rows import ImageBounds, classification_facts, with_bounds
from pipelines.tasks.classification import Classification
from tests.predict.test_batch_predictions import Predicting, lake  # noqa: F401 - a fixture

pytestmark = pytest.mark.processes
CLASSES = ("ant", "bee", "cat", "dog")
FACTS = classification_facts(channels=3, height=10, width=12, classes=CLASSES, mean=[0.4, 0.5, 0.6], deviation=[0.2, 0.3, 0.0],
                             class_counts=[1, 1, 1, 1])


def export_cnn(folder, task=FACTS):
    settings = CnnModel(first_channels=4, second_channels=4, dense_width=8)
    model = build_model(settings, task.sizes, seed=1)
    save_model(FolderStore(folder), model.unique_state().items(), model.specs(), settings, task=task, notes={}, files={})
    return model.eval()


def file_of(seed, size=(12, 10), mode="RGB", form="PNG"):
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values, "RGBA").convert(mode).save(file, form)
    return file.getvalue()


IMAGES = [file_of(0), file_of(1, mode="RGBA"), file_of(2, (30, 17)), file_of(3, mode="L"), file_of(4, (9, 40), "CMYK", "JPEG"),
          file_of(5, form="WEBP"), file_of(6, mode="P")]


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_the_model_takes_what_training_gives_to_it(tmp_path, resize):
    facts = with_bounds(FACTS, ImageBounds(resize))  # the rule that the training rows were made by
    export_cnn(tmp_path / "best", facts)
    answers = ImageAnswers(contract_of(FolderStore(tmp_path / "best"), Predict()))
    rule = ImageRule(ImageShape(3, 10, 12), True, True, resize, 10**6, "")
    records = ImageRecords(rule, {"cat": 2}, 10**6, as_files=False)
    rows = [records.of_file(Found("x", 0, "cat", None, len(content)), content).image for content in IMAGES]
    batch = Batch({"image": torch.tensor(np.stack([np.frombuffer(row, np.uint8).reshape(3, 10, 12) for row in rows])),
                   "label": torch.full((len(rows),), 2)}, torch.ones(len(rows)), torch.arange(len(rows)))
    trained, _ = Classification(FACTS).inputs_and_targets(batch)
    numbers, given = answers.inputs([None, *IMAGES], [None] * 8, 0)
    assert numbers == list(range(1, 8)) and torch.equal(given, trained)


@pytest.fixture
def predict(spark, lake, tmp_path):  # noqa: F811
    export_cnn(lake.root / lake.model("r", "last"))
    return Predicting(lake, tmp_path)


def test_a_folder_of_images_is_answered_or_says_why_not(predict, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, content in enumerate(IMAGES):
        (folder / f"{i}.png").write_bytes(content)
    for name, content in (("broken", IMAGES[0][:100]), ("none", b"text"), ("empty", b""), ("bomb", file_of(9, (200, 100)))):
        (folder / f"{name}.png").write_bytes(content)
    totals = predict(folder, model="last", top=3, max_image_pixels=10_000)
    assert (totals["rows"], totals["predicted"]) == (11, 7)
    assert totals["reasons"] == {"empty": 1, "oversized": 1, "undecodable": 2}
    rows = predict.rows()
    answers = ImageAnswers(contract_of(predict.lake.store.below(predict.lake.model("r", "last")), Predict()))
    model = export_cnn(tmp_path / "again")
    with torch.no_grad():
        probabilities = model(answers.inputs(IMAGES, [None] * 7, 0)[1]).softmax(-1)
    for i in range(7):
        row, (values, classes) = rows[str(folder / f"{i}.png")], probabilities[i].topk(3)
        assert row["labels"] == [CLASSES[index] for index in classes.tolist()] and row["label"] == row["labels"][0]
        assert row["probabilities"] == pytest.approx(values.tolist(), rel=1e-5) and row["reason"] is None
    assert rows[str(folder / "none.png")] == {"id": str(folder / "none.png"), "label": None, "probability": None, "labels": None,
                                             "probabilities": None, "reason": "undecodable"}


def test_a_table_and_a_column_of_images_are_answered_alike(predict, spark, tmp_path):
    pq.write_table(pa.table({"name": [*map(str, range(7)), "null"], "image": [*IMAGES, None]}), tmp_path / "given.parquet")
    totals = predict(tmp_path / "given.parquet", model="last", id_column="name")
    assert totals["reasons"] == {"empty": 1}
    label = predictor(predict.lake.root / predict.lake.model("r", "last"))
    frame = spark.read.parquet(str(tmp_path / "given.parquet"))
    found = {row["name"]: row.said for row in frame.withColumn("said", label("image")).collect()}
    assert {name: row["label"] for name, row in predict.rows().items()} == {name: row.label for name, row in found.items()}
    assert found["null"].reason == "empty"


SPARK_IMAGE = "struct<origin:string,height:int,width:int,nChannels:int,mode:int,data:binary>"
FORMS = {  # of a table's column, and how an image of three channels becomes one
    "binary": lambda values: file_of_values(values),
    "struct<bytes:binary,path:string>": lambda values: {"bytes": file_of_values(values), "path": "a.png"},
    SPARK_IMAGE: lambda values: {"origin": "a", "height": values.shape[0], "width": values.shape[1], "nChannels": 3, "mode": 16,
                                 "data": values[:, :, ::-1].tobytes()},
    "array<smallint>": lambda values: values.transpose(2, 0, 1).ravel().tolist(),  # as a dataset's shards have them
    "array<double>": lambda values: values.transpose(2, 0, 1).ravel().astype(float).tolist(),
    "array<array<array<int>>>": lambda values: values.tolist()}


def file_of_values(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMS)
def test_every_form_of_image_that_a_table_may_hold_is_answered_alike(predict, spark, tmp_path, kind):
    values = np.random.default_rng(0).integers(0, 256, (5, 10, 12, 3), dtype=np.uint8)
    answers = ImageAnswers(contract_of(predict.lake.store.below(predict.lake.model("r", "last")), Predict()))
    expected = answers.of([], [file_of_values(each) for each in values], [None] * 5)["probability"]
    rows = [(f"{i}", FORMS[kind](each)) for i, each in enumerate(values)]
    frame = spark.createDataFrame([*rows, ("none", None)], f"name STRING, pictures {kind}").coalesce(1)
    frame.write.parquet(str(tmp_path / "given"))
    found = predict(tmp_path / "given", model="last", id_column="name", column="pictures")
    assert (found["rows"], found["predicted"], found["reasons"]) == (6, 5, {"empty": 1})
    column = predictor(predict.lake.root / predict.lake.model("r", "last"))("pictures")
    said = {row["name"]: row.said for row in frame.withColumn("said", column).collect()}
    for i, probability in enumerate(expected):
        assert predict.rows()[f"{i}"]["probability"] == pytest.approx(probability, rel=1e-5)
        assert said[f"{i}"].probability == pytest.approx(probability, rel=1e-5)
    assert said["none"].reason == "empty"


def test_sparks_own_reader_of_images_gives_what_can_be_asked_and_the_column_is_found_by_its_type(predict, spark, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(file_of(i))
    spark.read.format("image").load(str(folder)).write.parquet(str(tmp_path / "spark"))
    spark.read.format("binaryFile").load(str(folder)).write.parquet(str(tmp_path / "files"))
    answers = ImageAnswers(contract_of(predict.lake.store.below(predict.lake.model("r", "last")), Predict()))
    expected = sorted(answers.of([], [file_of(i) for i in range(3)], [None] * 3)["probability"])
    for name in ("spark", "files"):
        predict(tmp_path / name, model="last", output=tmp_path / f"{name}-said")
        found = [row["probability"] for row in predict.rows(tmp_path / f"{name}-said").values()]
        assert sorted(found) == pytest.approx(expected, rel=1e-5)


def test_arrays_that_are_no_image_of_the_model_are_counted_and_the_totals_add_up(predict, spark, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3, 10, 12)).astype(float)
    flat = {"good": values.ravel(), "short": values.ravel()[:-1], "fraction": values.ravel() + 0.5, "negative": -values.ravel(),
            "of nothing": [], "not a number": [float("nan")] * 360}
    nested = {"fits": values, "scaled": values[:, :5, :5], "ragged": [[[1.0, 2.0], [1.0]]], "a hole": [[[None]]],
              "two channels": values[:2], "large": np.zeros((3, 30, 30))}
    reasons = {"short": "wrong_size", "fraction": "malformed", "negative": "malformed", "of nothing": "empty",
               "not a number": "malformed", "ragged": "malformed", "a hole": "malformed", "two channels": "malformed",
               "large": "oversized"}
    for name, rows, kind in (("flat", flat, "array<double>"), ("nested", nested, "array<array<array<double>>>")):
        made = [(key, value.tolist() if isinstance(value, np.ndarray) else value) for key, value in rows.items()]
        spark.createDataFrame(made, f"name STRING, image {kind}").write.parquet(str(tmp_path / name))
        totals = predict(tmp_path / name, model="last", id_column="name", output=tmp_path / f"{name}-said", max_row_bytes=2000)
        said = {key: row["reason"] for key, row in predict.rows(tmp_path / f"{name}-said").items()}
        assert said == {key: reasons.get(key) for key in rows}
        assert totals["rows"] == len(rows) == totals["predicted"] + sum(totals["reasons"].values())


def test_what_prepare_rejects_as_oversized_prediction_keeps_as_oversized(tmp_path):
    large, long = file_of(1, (40, 40), "L"), file_of(2, (12, 10))
    bounds = ImageBounds(max_pixels=400, max_bytes=len(long))
    export_cnn(tmp_path / "best", with_bounds(FACTS, bounds))
    for settings, reasons in (({}, ["oversized", None, "oversized"]),
                              ({"max_image_pixels": 1600, "max_row_bytes": 10**6}, [None] * 3)):
        contract = contract_of(FolderStore(tmp_path / "best"), Predict(**settings))
        given = [contract.asked.checked(content, contract.max_bytes) for content in (large, long, long + b" ")]
        said = ImageAnswers(contract).of([], [content for content, _ in given], [reason for _, reason in given])
        assert said["reason"] == reasons


def test_images_of_other_sizes_are_counted_where_the_rows_of_training_were_not_fitted(predict, tmp_path):
    shutil.rmtree(predict.lake.root / predict.lake.model("r", "last"))
    export_cnn(predict.lake.root / predict.lake.model("r", "last"), with_bounds(FACTS, ImageBounds("refuse")))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, content in enumerate(IMAGES):
        (folder / f"{i}.png").write_bytes(content)
    totals = predict(folder, model="last")
    assert (totals["rows"], totals["predicted"], totals["reasons"]) == (7, 5, {"wrong_size": 2})
    fitted = predict(folder, model="last", resize="pad", output=tmp_path / "fitted")
    assert (fitted["rows"], fitted["predicted"], fitted["reasons"]) == (7, 7, {})


def test_texts_for_a_model_of_images_are_refused(predict, tmp_path):
    for name, settings in (("given.txt", {}), ("given.txt", {"format": "lines"}), ("given.jsonl", {})):
        (tmp_path / name).write_text('{"text": "x"}')
        with pytest.raises(DataError, match=f"--input: .*{name} holds texts, but the model is for the task classification"):
            predict(tmp_path / name, model="last", **settings)
    assert not predict.output.exists()
    pq.write_table(pa.table({"image": ["x"]}), tmp_path / "given.parquet")
    with pytest.raises(DataError, match="'image' of .* is string, but the model is for the task classification"):
        predict(tmp_path / "given.parquet", model="last")
    with pytest.raises(ConfigError, match="predict.generate: is given, but the model is for the task classification"):
        predict(tmp_path / "given.parquet", model="last", generate=3)
