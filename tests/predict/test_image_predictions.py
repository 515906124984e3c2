"""A model of images is given what its training rows were made of, and says of every image its classes or why not."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipelines.config.models import CnnModel
from pipelines.config.predictions import Predict
from pipelines.errors import ConfigError, DataError
from pipelines.feed.batches import Batch
from pipelines.lake.store import FolderStore
from pipelines.models.build import build_model
from pipelines.models.export import save_model
from pipelines.predict.contracts import contract_of
from pipelines.predict.image_answers import ImageAnswers
from pipelines.predict.predictor import predictor
from pipelines.prepare.images.decoding import ImageRule, ImageShape
from pipelines.prepare.images.image_records import Found, ImageRecords
from pipelines.prepare.images.image_rows import classification_facts, with_resize
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
    facts = with_resize(FACTS, resize)  # the rule that the training rows were made by
    export_cnn(tmp_path / "best", facts)
    answers = ImageAnswers(contract_of(tmp_path / "best", Predict()))
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
    answers = ImageAnswers(contract_of(predict.lake.root / predict.lake.model("r", "last"), Predict()))
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


def test_texts_for_a_model_of_images_are_refused(predict, tmp_path):
    (tmp_path / "given.txt").write_text("x")
    with pytest.raises(DataError, match="--input: .*given.txt holds texts, but the model is for the task classification"):
        predict(tmp_path / "given.txt", model="last")
    pq.write_table(pa.table({"image": ["x"]}), tmp_path / "given.parquet")
    with pytest.raises(DataError, match="'image' of .* is string, but the model is for the task classification"):
        predict(tmp_path / "given.parquet", model="last")
    with pytest.raises(ConfigError, match="predict.generate: is given, but the model is for the task classification"):
        predict(tmp_path / "given.parquet", model="last", generate=3)
