"""The jobs as a user starts them: other folders, wrong options, twice, interrupted; in real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.lake.schemas import TABLE_DDL
from pipelines.predict.language_model import load_language_model
from tests.support.tiny_recipe import tiny_recipe

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
SECRET = "hush-4711"
PLATFORM = f"""
spark: {{master: "local[3]", conf: {{spark.sql.shuffle.partitions: 2, spark.hadoop.fs.s3a.secret.key: {SECRET}}}}}
layout: {{num_replicas: 2, micro_batch_samples: 4}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a name that breaks careless code, holding recipe, platform and texts."""
    folder = tmp_path_factory.mktemp("jobs") / "mit Leerzeichen 日本"
    (folder / "texts").mkdir(parents=True)
    for i in range(40):
        (folder / "texts" / f"text {i}.txt").write_text(f"the text number {i} says that {i * 7} is a number. " * 10)
    (folder / "texts" / "broken.txt").write_bytes(b"\xff\xfe not UTF-8")
    (folder / "recipe.yaml").write_text(tiny_recipe(f"'{folder / 'texts'}'"))
    (folder / "platform.yaml").write_text(PLATFORM)
    return folder


def command(job, place, *options):
    return [sys.executable, str(ROOT / "jobs" / f"{job}.py"), "--recipe", "recipe.yaml", "--platform", "platform.yaml", *options]


def run_job(job, place, *options, environment=None, timeout_s=200):
    """The job from inside ``place``, so that relative paths are that folder's."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    return subprocess.run(command(job, place, *options), cwd=place, env=env, capture_output=True, text=True, timeout=timeout_s)


@pytest.fixture(scope="module")
def finished(place):
    done = run_job("pipeline", place, "--set", f"spark.conf.my.api.key={SECRET}")
    assert done.returncode == 0, done.stderr
    return done


def test_a_dry_run_shows_the_plan_and_starts_and_writes_nothing(place):
    began = {p.pid for p in psutil.process_iter()}
    shown = run_job("pipeline", place, "--dry-run", "--set", "storage.root=untouched")
    assert shown.returncode == 0, shown.stderr
    assert "would be made" in shown.stdout
    assert "2 replicas x 1 segments" in shown.stdout
    assert not (place / "untouched").exists()
    assert not [p for p in psutil.process_iter(["name"]) if p.pid not in began and p.info["name"] == "java"]


def test_one_command_goes_from_text_to_model_tables_and_report(place, finished):
    for expected in ("validation loss", "by guessing", "by token frequencies", "tokens/s", "compute", "report.html"):
        assert expected in finished.stdout
    (report,) = place.glob("lake/runs/*/report.html")
    assert str(report) in finished.stdout  # whole, to be copied
    assert report.stat().st_size < 2_000_000
    (run_id,) = [path.name for path in (place / "lake/runs").iterdir()]
    model = load_language_model(place / "lake/models" / run_id / "best")
    assert model.generate("the", 5).startswith("the")
    rank_steps = pq.read_table(place / "lake/tables/rank_steps").to_pylist()
    assert sorted((row["step"], row["rank"]) for row in rank_steps) == [(s, r) for s in range(1, 13) for r in (0, 1)]
    rejected = pq.read_table(place / "lake/tables/rejected").to_pylist()
    assert [row["source"].endswith("broken.txt") for row in rejected] == [True]


def test_a_secret_of_sparks_settings_is_written_down_nowhere(place, finished):
    shown = run_job("pipeline", place, "--dry-run", "--set", f"spark.conf.my.api.key={SECRET}")
    assert "spark.hadoop.fs.s3a.secret.key" in shown.stdout
    assert not [text for text in (shown.stdout, shown.stderr, finished.stdout, finished.stderr) if SECRET in text]
    files = [path for path in (place / "lake").rglob("*") if path.is_file()]
    assert {"config.json", "plan.json", "state.json", "report.html"} <= {path.name for path in files}
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    (row,) = pq.read_table(place / "lake/tables/runs").to_pylist()
    assert "spark.conf.my.api.key=*****" in row["command"]
    assert SECRET not in str(row)


@pytest.mark.parametrize(("job", "options"), [("pipeline", ["--dry-run"]), ("train", []), ("report", [])])
def test_a_run_id_that_leads_out_of_the_lake_is_refused_before_anything_is_done(place, job, options):
    refused = run_job(job, place, "--run-id", "../../evil", "--set", "storage.root=not-yet", *options)
    assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
    assert refused.stderr.startswith("error: --run-id '../../evil': is not a name that files and tables can have")
    assert not (place / "not-yet").exists()


def test_the_tables_have_the_promised_columns_in_any_spark(spark, place, finished):
    for name, ddl in TABLE_DDL.items():
        table = spark.read.parquet(str(place / "lake/tables" / name))
        assert table.columns == [column.split()[0] for column in ddl.replace("ARRAY<STRING>", "ARRAY").split(", ")], name
        assert table.count() > 0 or name in ("class_metrics", "confusions"), name  # text has no classes
    path = str(place / "lake/tables/steps")
    assert spark.sql(f"SELECT max(step) AS last FROM parquet.`{path}`").first()["last"] == 12


def test_the_same_command_again_does_nothing_and_says_so(place, finished):
    before = {path: path.stat().st_mtime_ns for path in (place / "lake").rglob("*.parquet")}
    again = run_job("pipeline", place)
    assert again.returncode == 0
    for stage in ("prepare", "train"):
        assert f"{stage}: " in again.stderr
    assert again.stderr.count("nothing to do") == 3
    assert before == {path: path.stat().st_mtime_ns for path in (place / "lake").rglob("*.parquet")}


JOB_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def job_words(name, *options):
    return [sys.executable, str(ROOT / "jobs" / f"{name}.py"), "--platform", "platform.yaml", *options]


def job(place, name, *options):
    """A job with just these options: some take no recipe."""
    return subprocess.run(job_words(name, *options), cwd=place, env=JOB_ENVIRONMENT, capture_output=True, text=True, timeout=200)


def evaluate_job(place, *options):
    return job(place, "evaluate", *options)


def newest_run(place):
    return json.loads(job(place, "report", "--json").stdout)["run_id"]


def killed_when(process, there, bound_s=100):
    """Kills a job without a word once something is there; none of its processes is left behind."""
    until = time.monotonic() + bound_s
    try:
        while not there():
            assert process.poll() is None and time.monotonic() < until, process.stderr.read()
            time.sleep(0.002)
        process.send_signal(signal.SIGSTOP)  # so that it is where it was when its processes have been listed
        started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    finally:
        process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive


def test_a_model_is_evaluated_once_on_any_layout_and_gives_what_training_gave(place, finished):
    (run_id,) = [path.name for path in (place / "lake/runs").iterdir()]
    dry = evaluate_job(place, "--dry-run")
    assert dry.returncode == 0 and f"best model of run {run_id} (step 12) on split validation (would be done)" in dry.stdout
    done = evaluate_job(place, "--set", "layout.num_replicas=1", "--set", "layout.num_segments=2")
    assert done.returncode == 0, done.stderr
    assert f"run {run_id}: best model (step 12) on split validation" in done.stdout and "bits per byte" in done.stdout
    again = evaluate_job(place, "--run-id", run_id)
    assert again.returncode == 0 and "is complete, nothing to do" in again.stderr, again.stderr
    assert again.stdout == done.stdout
    rows = pq.read_table(place / "lake/tables/evaluations").to_pylist()
    (evaluated,) = [row for row in rows if row["model"] is not None]
    (recorded,) = [row for row in rows if row["model"] is None and row["step"] == 12]
    for name in ("loss", "perplexity", "bits_per_byte"):
        assert evaluated[name] == pytest.approx(recorded[name], rel=1e-5)
    assert evaluated["samples"] == recorded["samples"]
    assert "Best model on split validation" in (place / "lake/runs" / run_id / "report.html").read_text()


@pytest.mark.parametrize(("options", "code", "message"), [
    (["--run-id", "no-such-run"], 3, "run no-such-run: there is no such run"),
    (["--split", "test"], 3, "has no split test; use --split with one of: train ("),
    (["--model", "first"], 2, "'first' is not one of 'best', 'last'"),
    (["--dataset", "recipe.yaml", "--set", "prepare.sequence_length=16"], 3, "run the prepare job with that recipe first"),
    (["--set", "layout.num_replicas=3"], 2, "layout.num_replicas: 3 does not divide data.num_lanes (4)")])
def test_what_cannot_be_evaluated_is_one_clear_message(place, finished, options, code, message):
    failed = evaluate_job(place, *options)
    assert (failed.returncode, message in failed.stderr, "Traceback" in failed.stderr) == (code, True, False), failed.stderr


def test_a_model_is_evaluated_on_another_recipes_data_once_it_is_prepared(place, finished):
    (place / "others").mkdir()
    for i in range(20):
        (place / "others" / f"{i}.txt").write_text(f"another text, which says {i * 3} and {i * 5}. " * 8)
    (place / "other.yaml").write_text(tiny_recipe(f"'{place / 'others'}'").replace("name: tiny", "name: other"))
    missing = evaluate_job(place, "--dataset", "other.yaml")
    assert missing.returncode == 3 and "run the prepare job with that recipe first" in missing.stderr, missing.stderr
    prepared = job(place, "prepare", "--recipe", "other.yaml")
    assert prepared.returncode == 0, prepared.stderr
    done = evaluate_job(place, "--dataset", "other.yaml")
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(place / "lake/tables/evaluations").to_pylist()
    (row,) = [row for row in rows if row["dataset_name"] == "other"]
    (version,) = (place / "lake/datasets/other").glob("[!.]*")
    (manifest,) = version.glob("manifest.json")
    validation = json.loads(manifest.read_text())["splits"]["validation"]
    assert (row["dataset_version"], row["split"], row["model"]) == (version.name, "validation", "best")
    assert row["samples"] == sum(pq.read_metadata(version / shard["path"]).num_rows for shard in validation)
    assert "dataset other" in (place / "lake/runs" / row["run_id"] / "report.html").read_text()


def test_a_killed_evaluation_leaves_nothing_that_is_seen_and_the_same_command_completes_it(place, finished):
    run = place / "lake/runs" / newest_run(place)
    tables = {path: path.read_bytes() for path in (place / "lake/tables").rglob("*.parquet")}
    evaluating = subprocess.Popen(job_words("evaluate", "--run-id", run.name, "--split", "train"), cwd=place, env=JOB_ENVIRONMENT,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    killed_when(evaluating, lambda: [path for path in run.glob("evaluations/best-train-*/attempt-000/rank-*.jsonl")
                                     if path.stat().st_size])
    assert {path: path.read_bytes() for path in (place / "lake/tables").rglob("*.parquet")} == tables
    shown = job(place, "report", "--run-id", run.name, "--json")
    assert "split train" not in (run / "report.html").read_text() and shown.returncode == 0, shown.stderr
    for expected in ("Best model on split train", "is complete, nothing to do"):
        again = evaluate_job(place, "--run-id", run.name, "--split", "train")
        assert again.returncode == 0 and expected in again.stderr + (run / "report.html").read_text(), again.stderr
        rows = pq.read_table(place / "lake/tables/evaluations").to_pylist()
        assert len([row for row in rows if row["split"] == "train" and row["model"] == "best"]) == 1


def test_a_killed_prediction_is_completed_by_the_same_command_with_what_an_undisturbed_one_gives(place, finished):
    draw = random.Random(1)
    rows = ["".join(draw.choices("abcdefgh ", k=400)) for _ in range(1600)]
    pq.write_table(pa.table({"text": rows}), place / "given.parquet", row_group_size=100)
    asked = ["--run-id", newest_run(place), "--input", "given.parquet"]
    asking = subprocess.Popen(job_words("predict", *asked, "--output", "killed"), cwd=place, env=JOB_ENVIRONMENT,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    killed_when(asking, lambda: list((place / "killed").glob("part-*")))
    parts = {path: path.stat().st_mtime_ns for path in (place / "killed").glob("part-*")}
    assert not (place / "killed" / "_predictions.json").exists()
    for output in ("killed", "undisturbed"):
        done = job(place, "predict", *asked, "--output", output)
        assert done.returncode == 0, done.stderr
    found, undisturbed = (pq.read_table(place / name).sort_by("id") for name in ("killed", "undisturbed"))
    assert found.equals(undisturbed) and len(found) == 1600
    assert {path: path.stat().st_mtime_ns for path in parts} == parts  # answered once
    assert len(parts) < len(list((place / "undisturbed").glob("part-*")))


def test_a_changed_recipe_makes_a_new_run_beside_the_old(place, finished):
    changed = run_job("pipeline", place, "--set", "train.steps=8")
    assert changed.returncode == 0, changed.stderr
    assert len(list((place / "lake/runs").iterdir())) == 2
    assert len(list((place / "lake/datasets/tiny").glob("[!.]*"))) == 1


def test_the_report_speaks_json_to_machines(place, finished):
    shown = run_job("report", place, "--json")
    assert shown.returncode == 0, shown.stderr
    summary = json.loads(shown.stdout)
    assert (summary["status"], summary["steps"]["done"]) == ("completed", 12)
    assert summary["loss"]["validation_last"] < summary["baselines"][0]["loss"]


def test_an_automatic_layout_shows_what_it_was_chosen_from_and_trains(place, finished):
    shown = run_job("pipeline", place, "--dry-run", "--set", "layout=auto")
    assert shown.returncode == 0, shown.stderr
    assert "data parallel: the model fits one rank" in shown.stdout
    for column in ("replicas", "segments", "memory", "bubble", "wire/step", "chosen"):
        assert column in shown.stdout
    # too little memory for the whole model, enough for half of it
    tight = ["--set", "layout=auto", "--set", "layout.memory_per_rank_bytes=660000000", "--set",
             "model={num_layers: 6, num_heads: 4, width: 512}", "--set", "train.steps=3", "--set", "schedule.warmup_steps=1"]
    run = run_job("pipeline", place, *tight)
    assert run.returncode == 0, run.stderr
    assert "layer split: the model does not fit one rank" in run.stderr
    assert "replica 0: segment 0 = rank 0 on" in run.stderr
    assert "the model is cut into parts 0: embedding to" in run.stderr
    runs = {row["run_id"]: row for row in pq.read_table(place / "lake/tables/runs").to_pylist()}
    (split,) = [row for row in runs.values() if row["num_segments"] == 2]
    assert (split["status"], split["num_replicas"], len(split["placement"])) == ("completed", 1, 2)
    page = (place / "lake/runs" / split["run_id"] / "report.html").read_text()
    assert "One step of the split model" in page


@pytest.mark.parametrize(("job", "options", "code", "message"), [
    ("pipeline", ["--set", "layout.num_segments=5"], 2, "layout.num_segments: 5 segments need 5 layers, the model has 4"),
    ("pipeline", ["--set", "layout.num_segments=2", "--set", "layout.schedule=2f2b"], 2, "layout.schedule: '2f2b'"),
    ("pipeline", ["--set", "layout.num_segments=0"], 2, "use a number from 1 on, or auto"),
    ("pipeline", ["--set", "layout.num_segments=2", "--set", "train.steps=7",
                  "--set", "layout.micro_batch_samples=2"], 5, "2 x 2 segments need 4 slots"),
    ("pipeline", ["--set", "layout=auto", "--set", "layout.memory_per_rank_bytes=1000000", "--set", "train.steps=7"], 5,
     "the model needs"),
    ("pipeline", ["--set", "model={factory: 'no_such_package:build'}"], 2, "model.factory: no_such_package:build cannot be"),
    ("pipeline", ["--set", "layout.num_replicas=3"], 2, "layout.num_replicas: 3 does not divide data.num_lanes (4)"),
    ("pipeline", ["--nonsense"], 2, "No such option: --nonsense"),
    ("pipeline", ["--set", "prepare.inputs=[{path: nowhere}]"], 3, "prepare.inputs.0.path"),
    ("train", ["--set", "prepare.sequence_length=16"], 3, "run the prepare job first"),
    ("report", ["--run-id", "no-such-run"], 3, "no-such-run"),
    ("pipeline", ["--set", "storage.root=/proc/lake"], 8, "/proc/lake"),
    ("pipeline", ["--set", "layout.num_replicas=4", "--set", "train.steps=9"], 5, "layout.num_replicas: 4 x 1 segments need"),
    ("pipeline", ["--set", "spark.conf={spark.dynamicAllocation.enabled: true}"], 2, "spark.dynamicAllocation.enabled"),
])
def test_a_wrong_option_is_one_clear_message_and_its_exit_code(place, finished, job, options, code, message):
    failed = run_job(job, place, *options)
    assert failed.returncode == code, failed.stderr
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "\tat org." not in failed.stderr


@pytest.mark.parametrize(("code", "setting"), [
    (5, "layout.num_replicas=4"), (5, "launch.network_interface=eth99"), (5, "layout.device=cuda"),
    (2, "spark.conf={spark.speculation: true}"), (2, "spark.master=null")])
def test_a_dry_run_refuses_what_the_run_refuses_in_the_same_words(place, code, setting):
    options = ["--set", setting, "--set", "storage.root=not-even-begun"]
    dry, wet = (run_job("pipeline", place, *options, *dry_run, environment={"CUDA_VISIBLE_DEVICES": ""})
                for dry_run in (["--dry-run"], []))
    assert (dry.returncode, wet.returncode) == (code, code), dry.stderr + wet.stderr
    assert dry.stderr == wet.stderr
    assert dry.stderr.startswith("error: ")
    assert not (place / "not-even-begun").exists()


def test_ranks_that_cannot_start_are_told_before_anything_is_prepared(place):
    failed = run_job("pipeline", place, "--set", "layout.num_replicas=4", "--set", "storage.root=not-yet-there")
    assert failed.returncode == 5, failed.stderr
    assert "layout.num_replicas: 4 x 1 segments need" in failed.stderr
    assert "packed" not in failed.stderr
    assert not list((place / "not-yet-there").glob("datasets/*/*"))


def test_missing_java_is_named_with_what_installs_it(place, tmp_path):
    failed = run_job("prepare", place, "--set", "storage.root=elsewhere",
                     environment={"PATH": str(tmp_path), "JAVA_HOME": ""})
    assert failed.returncode == 5, failed.stderr
    assert "apt-get install" in failed.stderr


def started_training(place, run_id, options, rank=0):
    """A train job that would go on for ever, once a rank has made a step; and that rank's record file."""
    job = subprocess.Popen(command("train", place, "--set", "train.steps=100000", "--run-id", run_id, *options), cwd=place,
                           env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                           text=True)
    record = place / "lake/runs" / run_id / "attempt-000" / f"rank-{rank:05d}.jsonl"
    until = time.monotonic() + 120
    while not (record.exists() and '"kind": "step"' in record.read_text()):
        assert time.monotonic() < until, "no step was made"
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.1)
    return job, record


@pytest.mark.parametrize("victim", range(4))
def test_a_killed_rank_of_a_hybrid_layout_is_named_and_no_process_is_left(place, finished, victim):
    job, record = started_training(place, f"killed-{victim}", [
        "--set", "train.evaluate_every_steps=40", "--set", "spark.master=local[4]", "--set", "layout.num_segments=2",
        "--set", "layout.micro_batch_samples=2"], victim)
    started = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
    time.sleep(random.uniform(0.0, 0.5))
    os.kill(json.loads(record.read_text().splitlines()[0])["pid"], signal.SIGKILL)
    _, errors = job.communicate(timeout=40)
    assert job.returncode == 6, errors
    assert f"error: rank {victim} on " in errors
    assert "was killed by SIGKILL" in errors
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_every_process_within_its_bound(place, finished, tmp_path, number):
    job, record = started_training(place, f"stopped-{number}", ["--set", "train.evaluate_every_steps=100000"])
    started = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
    job.send_signal(number)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 9, errors
    assert f"error: {number.name}: the run was asked to stop" in errors
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    state = json.loads((record.parent / "state.json").read_text())
    assert (state["status"], state["exit_code"]) == ("interrupted", 9)
    rows = pq.read_table(place / "lake/tables/steps").to_pylist()
    assert any(row["run_id"] == f"stopped-{number}" for row in rows)


@pytest.fixture(scope="module")
def many_texts(tmp_path_factory):
    """More than a job prepares in a moment."""
    folder = tmp_path_factory.mktemp("many")
    for i in range(300):
        words = random.Random(i).choices(["the", "text", "number", "says", "that", str(i), str(i * 7), "once", "more"], k=9000)
        (folder / f"{i}.txt").write_text(" ".join(words))
    return folder


@pytest.mark.parametrize(("number", "moment", "times"), [
    (signal.SIGINT, "importing", 1), (signal.SIGTERM, "java", 1), (signal.SIGINT, " files, ", 2),
    (signal.SIGTERM, "tokenizer ready", 1)])
def test_an_interrupt_of_prepare_is_one_line_and_leaves_nothing(place, many_texts, tmp_path, number, moment, times):
    """In the imports, while Spark starts, right before its first job, in the middle of packing."""
    own = ["--set", f"prepare.inputs=[{{path: '{many_texts}'}}]", "--set", f"storage.root={tmp_path / 'lake'}",
           "--set", "prepare.tokenizer={kind: bpe, vocabulary_size: 1000}"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    job = subprocess.Popen(command("prepare", place, *own), cwd=place, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                           env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}, text=True)
    try:
        wait_for_moment(job, moment)
        started = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
        for _ in range(times):
            job.send_signal(number)
            time.sleep(0.2)
        _, errors = job.communicate(timeout=60)
    finally:
        job.kill()
    assert job.returncode == 9, errors
    said = [line for line in errors.splitlines() if not line.startswith("prepare: ")]
    assert said == [f"error: {number.name}: the run was asked to stop; the same command again starts it anew; "
                    "what was complete is kept"], errors
    assert not psutil.wait_procs(started, timeout=10)[1]
    assert not [each.name for each in temporary.iterdir() if not each.name.startswith("hsperfdata")]
    assert not list((tmp_path / "lake").glob("datasets/*/[!.]*"))


def wait_for_moment(job, moment, bound_s=60):
    """Until a process is at a place that can be seen from outside: its libraries, its children, a line that it printed."""
    until = time.monotonic() + bound_s
    process = psutil.Process(job.pid)
    if moment == "importing":  # of what the commands import early: signals have been taken care of by then
        there = lambda: any("pydantic_core" in each.path for each in process.memory_maps())  # noqa: E731
    elif moment == "java":
        there = lambda: any(each.name() == "java" for each in process.children(recursive=True))  # noqa: E731
    else:
        there = lambda: moment in job.stderr.readline()  # noqa: E731
    while not there():
        assert job.poll() is None and time.monotonic() < until, f"{moment} was not seen"
        time.sleep(0.01)
