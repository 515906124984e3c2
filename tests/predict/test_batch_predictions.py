"""Predictions over files and tables: every row is answered or says why not, restarts answer what is missing, and what does not
fit is refused before anything is done."""

from __future__ import annotations

import gzip
import json
import math
import random
import shutil
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyspark.sql.functions import col, concat, lit

from pipelines.config.load import Config, load_predict
from pipelines.config.predictions import Predict
from pipelines.errors import AlreadyRunningError, CheckpointError, ConfigError, DataError
from pipelines.flow.flow import JOBS, Flow
from pipelines.flow.predict_stage import run_config
from pipelines.flow.stage import Job
from pipelines.lake.claims import claimed
from pipelines.lake.paths import Lake
from pipelines.lake.runs import AttemptState, RunState
from pipelines.lake.store import FolderStore
from pipelines.models.build import build_model
from pipelines.models.export import save_model
from pipelines.models.exported_model import load_model
from pipelines.models.factory.settings import FactoryModel
from pipelines.models.gpt.settings import GptModel
from pipelines.predict import batch_predictions
from pipelines.predict.answered import OutputFolder
from pipelines.predict.contracts import contract_of
from pipelines.predict.given_rows import GIVEN_DDL, is_none_of, look_at, rows_of
from pipelines.predict.predict_plan import PredictRequest, refuse_shared_folder
from pipelines.predict.records import RecordReader
from pipelines.predict.text_answers import row_seed, windows_of
from pipelines.prepare.text.language_rows import language_facts
from pipelines.prepare.text.tokenizer import bytes_tokenizer, characters_tokenizer
from pipelines.tasks.generation import Prompt, Sampling, continuations
from tests.support.example_data import example_config

WINDOW, END = 24, 256
pytestmark = pytest.mark.processes


def export(folder, seed=1, task=None):
    settings = GptModel(num_layers=2, num_heads=2, width=16)
    model = build_model(settings, {"vocabulary_size": 257, "sequence_length": WINDOW}, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8.0)
    save_model(FolderStore(folder), model.unique_state().items(), model.specs(), settings, notes={},
               task=task or language_facts(vocabulary_size=257, sequence_length=WINDOW, end_of_text_id=END, tokenizer_sha256=""),
               files={"tokenizer.json": bytes_tokenizer().to_str().encode()})


@pytest.fixture
def lake(tmp_path):
    """A lake with a run ``r`` that has a model ``best``."""
    lake = Lake.at(tmp_path / "lake")
    run = lake.run("r")
    config = example_config(storage__root=str(lake.root), spark__master="local[2]")
    lake.store.put(run.config(0), config.to_json())
    AttemptState(0, 1, 1, "cpu", status="completed").save(run)
    RunState("r", "example", "h", "example", "v1", "tokens", "fp32", 10, 1000).save(run)
    export(lake.root / lake.model("r", "best"))
    return lake


class Predicting:
    """Jobs on one lake; what they say."""

    def __init__(self, lake, tmp_path):
        self.lake, self.output, self.said = lake, tmp_path / "out", []

    def flow(self, path, model="best", run_id="r", output=None, **settings):
        platform = example_config(storage__root=str(self.lake.root), spark__master="local[2]").platform
        request = PredictRequest(model, str(path), str(output or self.output), Predict(**settings))
        job = Job(run_config(platform, run_id), run_id, "the command", self.said.append, None, request)
        return Flow(job, JOBS["predict"])

    def __call__(self, path, **options):
        flow = self.flow(path, **options)
        flow.plan()
        flow.check()
        return flow.run()["predict"]

    def rows(self, output=None):
        parts = sorted((output or self.output).glob("part-*.parquet"))
        return {row["id"]: row for part in parts for row in pq.read_table(part).to_pylist()}


@pytest.fixture
def predict(spark, lake, tmp_path):
    return Predicting(lake, tmp_path)


def texts(number, seed=0):
    drawn = random.Random(seed)
    return ["".join(drawn.choice("abcdefgh äöü\n") for _ in range(drawn.randrange(1, 4 * WINDOW))).strip() or "x"
            for _ in range(number)]


def log_likelihood(model, text):
    """Token by token, each behind at most so many others as a window that moves by half gives it."""
    tokens = [END, *text.encode()]
    total, begin, end = 0.0, 0, 0
    with torch.no_grad():
        while end < len(tokens) - 1:
            first, end = end, min(begin + WINDOW, len(tokens) - 1)
            logits = model(torch.tensor([tokens[begin:end]]))[0].log_softmax(-1)
            total += sum(float(logits[i - begin, tokens[i + 1]]) for i in range(first, end))
            begin = max(end - WINDOW // 2, 0)
    return total


def test_every_row_of_a_table_of_texts_is_scored_or_says_why_not(predict, tmp_path):
    given = [*texts(40), None, "", " \n", "y" * 500]
    pq.write_table(pa.table({"key": [f"row {i}" for i in range(44)], "body": given}), tmp_path / "given.parquet",
                   row_group_size=7)
    totals = predict(tmp_path / "given.parquet", column="body", id_column="key", max_row_bytes=499)
    assert (totals["rows"], totals["predicted"], totals["reasons"]) == (44, 40, {"empty": 3, "oversized": 1})
    rows = predict.rows()
    assert [rows[f"row {i}"]["reason"] for i in range(40, 44)] == ["empty", "empty", "empty", "oversized"]
    model = load_model(predict.lake.root / predict.lake.model("r", "best")).model
    for i in range(40):
        row, size = rows[f"row {i}"], len(given[i].encode())
        assert (row["tokens"], row["bytes"], row["reason"]) == (size, size, None)
        assert row["log_likelihood"] == pytest.approx(log_likelihood(model, given[i]), rel=1e-4)
        assert row["bits_per_byte"] == pytest.approx(-row["log_likelihood"] / math.log(2) / size)


@pytest.mark.parametrize("length", [1, 2, 5, 24, 25])
def test_windows_count_every_token_once_behind_half_a_window_at_least(length):
    for number in range(130):
        windows = list(windows_of(3, number, length))
        assert [i for window in windows for i in range(window.first, window.end)] == list(range(number))
        assert all(window.end - window.begin <= length for window in windows)
        assert all(window.begin == 0 or window.first - window.begin >= length // 2 for window in windows)


def test_texts_go_on_by_their_ids_wherever_they_are(predict, tmp_path):
    given = {f"row {i}": text for i, text in enumerate(texts(30))}
    options = {"generate": 12, "temperature": 1.5, "top_k": 0, "top_p": 0.9, "seed": 7, "id_column": "id"}
    pq.write_table(pa.table({"id": list(given), "text": list(given.values())}), tmp_path / "one.parquet")
    (tmp_path / "two").mkdir()
    backwards = list(given.items())[::-1]
    for i in range(3):
        (tmp_path / "two" / f"{i}.jsonl").write_text("".join(
            json.dumps({"text": text, "id": name}) + "\n" for name, text in backwards[i::3]))
    predict(tmp_path / "one.parquet", **options)
    predict(tmp_path / "two", output=tmp_path / "other", **options)
    assert predict.rows() == predict.rows(tmp_path / "other") and len(predict.rows()) == 30
    exported = load_model(predict.lake.root / predict.lake.model("r", "best"))
    tokenizer = bytes_tokenizer()
    for name, text in list(given.items())[:5]:
        prompt = Prompt(list(text.encode()), row_seed(7, name))
        ((_, further),) = continuations(exported.model, [prompt], 12, exported.task, Sampling(1.5, 0, 0.9))
        row = predict.rows()[name]
        assert (row["tokens"], row["continuation"]) == (len(further), tokenizer.decode(further))
    predict(tmp_path / "one.parquet", output=tmp_path / "seed 8", **{**options, "seed": 8})
    other = predict.rows(tmp_path / "seed 8")
    assert sum(other[name]["continuation"] != row["continuation"] for name, row in predict.rows().items()) > 20


def test_a_text_stops_before_the_stop_text(predict, tmp_path):
    pq.write_table(pa.table({"text": texts(20)}), tmp_path / "given.parquet")
    options = {"generate": 12, "temperature": 1.5, "top_k": 0}
    predict(tmp_path / "given.parquet", output=tmp_path / "whole", **options)
    whole = {name: row["continuation"] for name, row in predict.rows(tmp_path / "whole").items()}
    stop = next(text[3] for text in whole.values() if len(text) > 3 and text[3].isascii())
    predict(tmp_path / "given.parquet", stop=stop, **options)
    stopped = {name: row["continuation"] for name, row in predict.rows().items()}
    assert stopped != whole and not [text for text in stopped.values() if stop in text]
    assert all(whole[name].startswith(text) for name, text in stopped.items() if "�" not in text)


def test_documents_and_lines_are_rows_with_their_place_as_id(predict, tmp_path):
    folder = tmp_path / "texts [1] ü"
    folder.mkdir()
    (folder / "a.txt").write_text("one\ntwo\n")
    (folder / "b.txt").write_bytes(b"\xff\xfe broken")
    (folder / "c.txt").write_text("")
    (folder / "d.txt.gz").write_bytes(gzip.compress(b"packed"))
    (folder / "e.txt").write_text("z" * 300)
    (folder / "f.txt.gz").write_bytes(gzip.compress(b"cut off" * 50)[:20])
    (folder / "_hidden.txt").write_text("not read")
    totals = predict(folder, max_row_bytes=200)
    reasons = {name.rpartition("/")[2]: row["reason"] for name, row in predict.rows().items()}
    assert reasons == {"a.txt": None, "b.txt": "undecodable", "c.txt": "empty", "d.txt.gz": None, "e.txt": "oversized",
                       "f.txt.gz": "damaged"}
    assert predict.rows()[str(folder / "d.txt.gz")]["bytes"] == 6
    assert (totals["rows"], totals["predicted"]) == (6, 2)
    (tmp_path / "lines.txt").write_text("\ufeffone\n\ntwo\n")
    predict(tmp_path / "lines.txt", output=tmp_path / "lines", format="lines")
    lines = predict.rows(tmp_path / "lines")
    assert {name.rpartition(":")[2]: (row["bytes"], row["reason"]) for name, row in lines.items()} == {
        "0": (3, None), "1": (None, "empty"), "2": (3, None)}


def test_lines_of_json_are_rows_or_say_why_not(predict, tmp_path):
    lines = ['{"text": "good", "n": 5}', "{broken", '{"other": 1}', '{"text": 3}', '{"text": null}', "[1]", '{"text": "also"}']
    (tmp_path / "given.jsonl").write_text("\n".join(lines))
    totals = predict(tmp_path / "given.jsonl", id_column="n")
    assert totals["reasons"] == {"empty": 1, "malformed": 4} and totals["rows"] == 7
    assert predict.rows()["5"]["bytes"] == 4


def test_texts_that_the_tokenizer_cannot_spell_are_counted_and_the_totals_add_up(predict, tmp_path):
    folder = predict.lake.root / predict.lake.model("r", "best")
    (folder / "tokenizer.json").write_text(characters_tokenizer("ab").to_str())
    pq.write_table(pa.table({"text": ["ab", "ax", "", "b"]}), tmp_path / "given.parquet")
    for settings in ({}, {"generate": 2}):
        totals = predict(tmp_path / "given.parquet", output=tmp_path / f"said {settings}", **settings)
        assert (totals["rows"], totals["predicted"], totals["reasons"]) == (4, 2, {"empty": 1, "unencodable": 1})


def test_a_table_of_the_session_is_read_by_its_name(predict, spark, tmp_path):
    path = tmp_path / "warehouse"
    spark.createDataFrame([(1, "one"), (2, "two")], "n INT, text STRING").write.parquet(str(path))
    spark.sql(f"CREATE TABLE given_texts USING parquet LOCATION '{path}'")
    try:
        totals = predict("given_texts", id_column="n")
        assert totals["predicted"] == 2 and set(predict.rows()) == {"1", "2"}
        assert predict("given_texts", id_column="n") == totals
    finally:
        spark.sql("DROP TABLE given_texts")
    with pytest.raises(DataError, match="--input: 'given_texts' is neither a file or folder nor a table of this session"):
        predict("given_texts")


def test_a_url_is_read_by_the_sessions_own_file_system(predict, tmp_path):
    pq.write_table(pa.table({"text": texts(5)}), tmp_path / "given.parquet")
    assert predict(f"viewfs://tests{tmp_path}/given.parquet")["predicted"] == 5


def test_again_is_a_no_op_and_what_is_missing_is_answered_alone(predict, tmp_path, monkeypatch):
    (tmp_path / "given").mkdir()
    for i in range(6):
        pq.write_table(pa.table({"text": texts(300, i)}), tmp_path / "given" / f"{i}.parquet", row_group_size=50)
    monkeypatch.setattr("pipelines.predict.given_rows.MIN_SPLIT_BYTES", 4000)
    totals = predict(tmp_path / "given")
    rows, parts = predict.rows(), sorted(predict.output.glob("part-*"))
    assert len(rows) == 1800 and len(parts) > 6
    times = {part: part.stat().st_mtime_ns for part in parts}
    predict(tmp_path / "given")
    assert predict.said[-1] == f"predict: predictions in {predict.output} is complete, nothing to do"
    assert {part: part.stat().st_mtime_ns for part in sorted(predict.output.glob("part-*"))} == times
    (predict.output / "_predictions.json").unlink()  # as if the job had been killed
    for part in parts[::3]:
        part.unlink()
    assert predict(tmp_path / "given") == totals and predict.rows() == rows
    again = {part: part.stat().st_mtime_ns for part in sorted(predict.output.glob("part-*"))}
    assert [part for part in parts if again.get(part) != times[part]] == parts[::3]


@pytest.mark.parametrize(("part_s", "parts"), [(0.0, [{"0 a"}, {"9 a"}, {"0 b"}]), (60.0, [{"0 a", "9 a", "0 b"}])])
def test_a_task_that_takes_long_writes_whole_ranges_as_it_goes(lake, tmp_path, monkeypatch, part_s, parts):
    monkeypatch.setattr(batch_predictions, "PART_S", part_s)
    contract = contract_of(lake.store.below(lake.model("r", "best")), Predict())
    ranges = {("a", 0): ["one", "two"], ("a", 9): ["three"], ("b", 0): ["four", "five"]}
    kinds = {"STRING": pa.string(), "BIGINT": pa.int64(), "BINARY": pa.binary()}
    given = pa.schema([(name, kinds[kind]) for name, kind in (column.split() for column in GIVEN_DDL.split(", "))])
    batches = [pa.RecordBatch.from_pylist([
        {"file": file, "start": start, "row": None, "id": text, "content": text.encode(), "bytes": len(text)} for text in some],
        given) for (file, start), texts in ranges.items() for some in [texts[:1], texts[1:]] if some]
    output = OutputFolder(str(tmp_path / "out"))
    assert batch_predictions.answer_partition(batches, contract, output, RecordReader(contract, "lines"), frozenset()) == ""
    assert sorted(map(sorted, (part.ranges for part in output.parts()))) == sorted(map(sorted, parts))
    found = [row["id"] for file in (tmp_path / "out").glob("part-*") for row in pq.read_table(file).to_pylist()]
    assert sorted(found) == ["five", "four", "one", "three", "two"]


def test_answered_files_however_many_are_told_apart_exactly_and_not_opened(predict, spark, tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    for name in ("answered ü", "missing"):
        (folder / name).write_text(name)
    look = look_at(str(folder), Predict(), predict.lake.root)
    given = rows_of(spark, look, contract_of(predict.lake.store.below(predict.lake.model("r", "best")), Predict())).rows
    (answered,) = (row.file for row in given.select("file").collect() if "missing" not in row.file)
    many = [f"file:///elsewhere/{i}" for i in range(100_000)]
    (folder / "answered ü").unlink()  # so that opening it would fail
    began = time.monotonic()
    missing = given.where(is_none_of(col("file"), [*many, answered]))
    assert [bytes(row.content) for row in missing.collect()] == [b"missing"]
    asked = spark.range(50_000, 150_000).select(concat(lit("file:///elsewhere/"), col("id")).alias("file"))
    assert asked.where(is_none_of(col("file"), many)).count() == 50_000
    assert time.monotonic() - began < 30
    with batch_predictions._cut_alike(spark, look):
        assert len(missing._jdf.queryExecution().toString()) < 10**5


def test_predictions_of_another_model_input_or_setting_are_not_mixed(predict, tmp_path):
    pq.write_table(pa.table({"text": texts(5)}), tmp_path / "given.parquet")
    predict(tmp_path / "given.parquet")
    before = predict.rows()
    with pytest.raises(DataError, match="holds predictions of another settings; give another --output, or remove it"):
        predict(tmp_path / "given.parquet", generate=3)
    assert predict(tmp_path / "given.parquet", rows=3)["rows"] == 5  # decides the speed alone
    (predict.output / "_predictions.json").unlink()
    pq.write_table(pa.table({"text": texts(6)}), tmp_path / "given.parquet")
    with pytest.raises(DataError, match="holds predictions of another input"):
        predict(tmp_path / "given.parquet")
    pq.write_table(pa.table({"text": texts(5)}), tmp_path / "given.parquet")
    export(predict.lake.root / predict.lake.model("r", "best"), seed=2)
    with pytest.raises(DataError, match="holds predictions of another model"):
        predict(tmp_path / "given.parquet")
    assert predict.rows() == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match=r"--output: .*full holds other files \(mine.txt\); give a new or empty folder"):
        predict(tmp_path / "given.parquet", output=tmp_path / "full")


def test_an_output_belongs_to_one_job_at_a_time(predict, tmp_path):
    pq.write_table(pa.table({"text": texts(5)}), tmp_path / "given.parquet")
    refusal = AlreadyRunningError("x", "y")
    with (claimed(predict.output / ".lock", refusal),
          pytest.raises(AlreadyRunningError, match="another process writes predictions there")):
        predict(tmp_path / "given.parquet")


def test_an_input_without_rows_gives_an_empty_table(predict, tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "given.parquet")
    assert predict(tmp_path / "given.parquet")["rows"] == 0
    (part,) = predict.output.glob("part-*")
    assert pq.read_table(part).column_names == ["id", "tokens", "bytes", "log_likelihood", "bits_per_byte", "reason"]


def test_an_input_that_changes_meanwhile_is_not_published(predict, tmp_path, monkeypatch):
    pq.write_table(pa.table({"text": texts(5)}), tmp_path / "given.parquet")
    answer = batch_predictions._answer

    def answer_and_change(*args):
        answer(*args)
        pq.write_table(pa.table({"text": texts(6)}), tmp_path / "given.parquet")

    monkeypatch.setattr(batch_predictions, "_answer", answer_and_change)
    with pytest.raises(DataError, match="input changed while it was read"):
        predict(tmp_path / "given.parquet")
    assert not (predict.output / "_predictions.json").exists()


def test_what_does_not_fit_the_model_is_refused(predict, tmp_path):
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "numbers.parquet")
    given, numbers, pictures = (tmp_path / f"{name}.parquet" for name in ("given", "numbers", "pictures"))
    pq.write_table(pa.table({"picture": [{"bytes": b"\x89PNG"}]}), pictures)
    pq.write_table(pa.table({"text": texts(5), "more": [[1]] * 5}), given)
    (tmp_path / "given.jsonl").write_text('{"body": "x"}\n')
    for folder, name in (("images", "a.png"), ("mixed", "b.parquet")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"\x89PNG")
    (tmp_path / "mixed" / "c.txt").write_text("x")
    for match, path, options in (
            ("predict.column: 'body' of .* is not there; name a column of string or binary .*; there are text, more", given,
             {"column": "body"}),
            ("predict.id_column: 'more' of .* is array<bigint>, which names no row; there are text, more", given,
             {"id_column": "more"}),
            ("predict.id_column: 'key' of .* is not there", given, {"id_column": "key"}),
            ("predict.column: 'text' of .* is bigint, but the model is for the task language, which takes texts", numbers, {}),
            ("predict.column: 'picture' of .* is struct<bytes:binary>, but the model is for the task language, which takes texts",
             pictures, {"column": "picture"}),
            ("predict.column: 'text' is in none of the first lines of .*; there are body", tmp_path / "given.jsonl", {}),
            ("--input: .*images holds images, but the model is for the task language, which takes texts", tmp_path / "images",
             {}),
            (r"--input: holds files of several kinds: b.parquet \(parquet\), c.txt \(text\)", tmp_path / "mixed", {}),
            ("--input: .*nothing.txt' does not exist", tmp_path / "nothing.txt", {}),
            ("run other: ", given, {"run_id": "other"}),
            ("--model last: run r has none in .*; use --model best", given, {"model": "last"})):
        with pytest.raises(DataError, match=match):
            predict(path, output=tmp_path / "fresh", **options)
        assert not (tmp_path / "fresh").exists()
    for match, options in (("--model: 'newest' is none of best, last", {"model": "newest"}),
                           ("--output: s3a://b/x is a URL", {"output": "s3a://b/x"}),
                           ("--output: .* holds the input", {"output": tmp_path}),
                           ("--run-id '../x': is not a name", {"run_id": "../x"})):
        with pytest.raises(ConfigError, match=match):
            predict(given, **options)
    with pytest.raises(ConfigError, match="--input: holds a password"):
        predict("s3a://key:hush@bucket/x")


@pytest.mark.parametrize(("given", "output", "how"), [
    ("in", "in", "is a part of"), ("in", "in/out", "is a part of"), ("in/a.txt", "in", "holds"), ("in", ".", "holds"),
    ("in/*", "in/out", "is a part of"), ("in/*.txt", "in", "holds"), ("**/*.parquet", "in/out", "is a part of"),
    ("link", "in/out", "is a part of"), ("in/*.txt", "in/out", None), ("in", "inner", None), ("in/a.txt", "in/out", None)])
def test_an_output_that_shares_a_folder_with_the_input_is_refused_in_the_plan(tmp_path, given, output, how):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("x")
    (tmp_path / "link").symlink_to("in")
    if how is None:
        refuse_shared_folder(str(tmp_path / given), tmp_path / output)
    else:
        with pytest.raises(ConfigError, match=f"^--output: .* {how} the input .*; give a folder beside the input"):
            refuse_shared_folder(str(tmp_path / given), tmp_path / output)


def test_a_model_that_is_damaged_or_of_another_task_is_refused(predict, tmp_path):
    pq.write_table(pa.table({"text": texts(5)}), tmp_path / "given.parquet")
    folder = predict.lake.root / predict.lake.model("r", "best")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(CheckpointError, match="is not an exported model"):  # told by a worker
        predict(tmp_path / "given.parquet")
    (folder / "model.safetensors").write_bytes(weights)
    assert predict(tmp_path / "given.parquet")["rows"] == 5  # nothing had been answered by the damaged one
    described = (folder / "sparkring.json").read_text()
    (folder / "sparkring.json").write_text(described.replace('"language"', '"weather"'))
    with pytest.raises(CheckpointError, match="is a model for the task 'weather', which cannot be asked"):
        predict(tmp_path / "given.parquet")


def test_a_model_of_ones_own_is_asked_once_its_factory_is_named_as_the_refusal_says(predict, tmp_path):
    pq.write_table(pa.table({"text": texts(5)}), tmp_path / "given.parquet")
    folder = predict.lake.root / predict.lake.model("r", "best")
    settings = FactoryModel(kind="factory", factory="tests.support.own_models:residual")
    model = build_model(settings, {"vocabulary_size": 257, "sequence_length": WINDOW}, seed=1)
    shutil.rmtree(folder)
    save_model(FolderStore(folder), model.unique_state().items(), model.specs(), settings, notes={},
               task=language_facts(vocabulary_size=257, sequence_length=WINDOW, end_of_text_id=END, tokenizer_sha256=""),
               files={"tokenizer.json": bytes_tokenizer().to_str().encode()})
    with pytest.raises(CheckpointError, match="was made by the factory tests.support.own_models:residual; if you") as refusal:
        predict.flow(tmp_path / "given.parquet").plan()
    (tmp_path / "platform.yaml").write_text("spark: {master: 'local[2]'}\n")
    _, asked = load_predict(tmp_path / "platform.yaml", [refusal.value.remedy.rpartition("--set ")[2]])
    assert predict(tmp_path / "given.parquet", factory=asked.factory)["predicted"] == 5


def test_settings_come_from_the_command_line_and_are_checked(tmp_path):
    (tmp_path / "platform.yaml").write_text("spark: {master: 'local[2]'}\n")
    _, settings = load_predict(tmp_path / "platform.yaml", ["predict.generate=5", "predict.stop=END", "layout.num_replicas=1"])
    assert (settings.generate, settings.stop) == (5, "END")
    for override, message in (("predict.temprature=1", "predict.temprature"), ("predict.top_p=0", "predict.top_p"),
                              ("train.steps=1", "there is no section 'train'")):
        with pytest.raises(ConfigError, match=message):
            load_predict(tmp_path / "platform.yaml", [override])


def test_a_dry_run_says_what_would_be_done(predict, tmp_path):
    pq.write_table(pa.table({"text": texts(5)}), tmp_path / "given.parquet")
    flow = predict.flow(tmp_path / "given.parquet")
    flow.plan()
    flow.check()
    assert flow.shown()["predictions"] == f"{predict.output} (would be made)" and "1 files (parquet)" in flow.shown()["input"]
    assert not predict.output.exists()
    assert isinstance(flow.job.config, Config)
