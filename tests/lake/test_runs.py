"""What a run's folder says of the run and of each attempt at it."""

import json

import pytest

from pipelines.errors import ConfigError, DataError
from pipelines.lake.paths import Lake
from pipelines.lake.runs import OlderRunError, RunState, current_state
from pipelines.launch.identity import claim_run, next_attempt
from pipelines.track.summary import find_run
from tests.track.conftest import save_state

# As the version wrote it that kept a run and its newest attempt in one file.
OLDER_STATE = """{
  "run_id": "old", "recipe_name": "gpt-demo", "recipe_hash": "91b2f3aa", "dataset_name": "gpt-demo",
  "dataset_version": "0a1b2c3d4e5f6071", "num_replicas": 2, "num_segments": 1, "device": "cpu", "precision": "fp32",
  "planned_steps": 20, "parameters": 1234, "status": "completed", "attempt": 0, "attempt_start_steps": [0],
  "started_s": 1790000000.0, "ended_s": 1790000060.0, "exit_code": 0, "error": null, "placement": ["host-a", "host-b"],
  "command": "sparkring train", "model_code": {}, "environment": {}
}"""


@pytest.fixture
def lake(tmp_path):
    return Lake.at(tmp_path)


def older_run(lake):
    run = lake.run("old")
    run.store.put(run.state, OLDER_STATE)
    return run


def test_a_run_that_an_older_version_made_is_refused_with_what_to_do(lake):
    run = older_run(lake)
    with pytest.raises(OlderRunError, match=r"run old: was made by another version .* use another --run-id, or move .*/old away"):
        current_state(run)
    with pytest.raises(OlderRunError):
        find_run(lake, None)
    save_state(lake, "new", started_s=1.0)
    assert find_run(lake, None).run_id == "new"  # it is asked for by no name: what cannot be read is passed over


def test_each_attempt_says_how_it_went_and_the_newest_how_the_run_stands(lake):
    save_state(lake, "r", (0, 4), status="interrupted", exit_code=9, num_replicas=4)
    state = current_state(lake.run("r"))
    assert [(attempt.status, attempt.num_ranks, attempt.start_step) for attempt in state.attempts] == [
        ("failed", 2, 0), ("interrupted", 4, 4)]
    assert (state.status, state.newest.number) == ("interrupted", 1)
    assert "status" not in json.loads(lake.store.read(lake.run("r").state).decode())


def test_an_attempt_whose_driver_was_gone_before_the_next_one_is_lost_though_the_run_goes_on(lake):
    run = lake.run("r")
    first = save_state(lake, "r", environment={"driver": "host-a"}).newest
    save_state(lake, "r", (0, 0))
    first.save(run)
    with claim_run(run, "r"):
        assert [attempt.status for attempt in current_state(run).attempts] == ["lost", "running"]


def test_a_folder_in_which_no_attempt_has_begun_counts_for_a_number_and_for_nothing_else(lake):
    run = lake.run("r")
    save_state(lake, "r")
    run.live(1).make()
    assert [attempt.number for attempt in current_state(run).attempts] == [0]
    assert next_attempt(run) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 2, "run_id": "r", "colour": "red"}'])
def test_a_damaged_state_is_told_with_its_file(lake, text):
    save_state(lake, "r")
    lake.store.put(lake.run("r").state, text)
    with pytest.raises(DataError, match=r"runs/r/state.json: is not a run's state"):
        RunState.load(lake.run("r"))


def test_a_run_without_attempts_is_told(lake):
    save_state(lake, "r")
    (lake.root / lake.run("r").attempt_state(0)).unlink()
    with pytest.raises(DataError, match="runs/r: has no attempt; use another --run-id"):
        current_state(lake.run("r"))


def test_a_run_that_is_not_there_has_no_state(lake):
    assert current_state(lake.run("r")) is None
    with pytest.raises(ConfigError):
        lake.run("../r")
