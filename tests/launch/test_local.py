"""Ranks without Spark, as tests, benchmarks and people start them: they end well or say why not, and never outlive the call."""

import json
import os
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml

from pipelines.errors import RankFailedError, StalledError
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail, end_record
from pipelines.launch.by_hand import main
from pipelines.launch.local import prepare_run, rank_failure, run_attempt, started
from pipelines.launch.local_environments import rank_environments
from tests.support.example_data import example_config, publish_example


def prepared(folder, **overrides):
    lake = Lake.at(folder)
    return prepare_run(lake, example_config(layout__num_replicas=2, **overrides), publish_example(lake))


@pytest.mark.processes
def test_ranks_that_are_not_done_in_time_are_ended_and_named(tmp_path):
    run = prepared(tmp_path, train__steps=1_000_000)
    with pytest.raises(StalledError, match=r"ranks 0, 1: were not done after 3 s; logs: .*attempt-000"):
        run_attempt(run, timeout_s=3)
    assert [child.pid for child in psutil.Process().children() if str(run.lake.root) in " ".join(child.cmdline())] == []


@pytest.mark.processes
def test_a_rank_that_is_killed_is_the_one_that_is_told_and_the_other_ends_by_itself(tmp_path):
    run = prepared(tmp_path, train__steps=1_000_000)
    killer = threading.Thread(target=kill_rank_1_after_a_step, args=[run])
    killer.start()
    with pytest.raises(RankFailedError, match=r"rank 1: was killed by SIGKILL .*rank-00001.log"):
        run_attempt(run, timeout_s=120)
    killer.join()
    assert end_record(run.live(0).record(0))["error"]["peer_lost"]


def kill_rank_1_after_a_step(run):
    tail, records, until = RecordTail(run.live(0).record(1)), [], time.monotonic() + 60
    while not any(record["kind"] == "step" for record in records) and time.monotonic() < until:
        time.sleep(0.05)
        records += tail.new_records()
    psutil.Process(records[0]["pid"]).kill()


@pytest.mark.processes
def test_ranks_share_their_callers_session_and_so_its_share_of_the_cpus_but_not_its_ctrl_c(tmp_path):
    run = prepared(tmp_path, train__steps=1_000_000)
    with started(run) as processes:
        assert {os.getsid(process.pid) for process in processes} == {os.getsid(0)}
        assert [os.getpgid(process.pid) for process in processes] == [process.pid for process in processes]


@pytest.mark.processes
def test_no_rank_outlives_a_caller_that_breaks(tmp_path):
    run = prepared(tmp_path, train__steps=1_000_000)
    with pytest.raises(ZeroDivisionError), started(run) as processes:
        1 / 0  # noqa: B018
    assert all(process.returncode is not None for process in processes)


def test_each_rank_finds_its_place_in_its_segments_ring():
    with rank_environments(4, 2, threads_per_rank=3) as environments:
        places = [[each[name] for name in ("SPARKRING_SEGMENT_INDEX", "HOROVOD_RANK", "HOROVOD_SIZE", "OMP_NUM_THREADS")]
                  for each in environments]
    assert places == [["0", "0", "2", "3"], ["1", "0", "2", "3"], ["0", "1", "2", "3"], ["1", "1", "2", "3"]]


def test_a_rank_that_fails_shows_how_it_ended_and_the_end_of_what_it_said():
    error = rank_failure(3, 7, "first\n" * 100 + "last", "the log")
    assert isinstance(error, StalledError)  # what the exit code says
    said = str(error).splitlines()
    assert (said[0], said[-1], len(said)) == ("rank 3: ended with exit code 7; its whole output: the log", "  | last", 61)


@pytest.mark.processes
def test_a_training_by_hand_changes_nothing_in_the_lake_and_says_where_its_results_are(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dataset, settings = published_with_settings(tmp_path)
    before = sorted(dataset.rglob("*"))
    assert main([str(dataset), *settings, "train.steps=3", "layout.num_replicas=2"]) == 0
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert len(list(Path(said["logs and records"]).glob("rank-*.jsonl"))) == 2
    assert (Path(said["models"]) / "last/model.safetensors").exists()
    assert not (tmp_path / "lake/runs").exists()
    assert sorted(dataset.rglob("*")) == before


def test_a_training_by_hand_says_what_it_wants_and_refuses_a_layout_that_it_cannot_choose(tmp_path, capsys):
    dataset, settings = published_with_settings(tmp_path)
    assert main([]) == 2
    assert main([str(dataset), *settings, "layout=auto"]) == 2
    usage, refusal = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: python -m pipelines.launch.by_hand DATASET_FOLDER RECIPE PLATFORM")
    assert refusal.startswith("error: layout: auto is chosen from the slots of Spark") and refusal.endswith("; give numbers")
    assert main([str(tmp_path / "nowhere"), *settings]) == 3


def published_with_settings(folder):
    """A dataset's folder, and the files of a recipe and a platform that it fits."""
    lake = Lake.at(folder / "lake")
    manifest = publish_example(lake)
    content = json.loads(example_config().to_json())
    files = []
    for name in ("recipe", "platform"):
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(content[name]))
    return lake.root / lake.dataset(manifest.name, manifest.version), [str(file) for file in files]
