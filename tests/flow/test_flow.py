"""What the flow does when a stage, and then what follows it, goes wrong."""

import pytest

from pipelines.errors import RankFailedError, StorageError
from pipelines.flow.flow import Flow, FlowPlan
from pipelines.lake.paths import Lake
from pipelines.prepare.prepare import PreparePlan
from tests.example_data import example_config


@pytest.fixture
def training(tmp_path, monkeypatch):
    """A flow that is about to train, whose metrics cannot be loaded; and what it says."""
    def full_disk(lake, run_id):
        raise StorageError("tables/runs", "cannot be written: No space left on device")

    monkeypatch.setattr("pipelines.flow.flow.load_run", full_disk)
    lake, said = Lake.at(tmp_path), []
    lake.store.put(lake.run("r").state, "{}")
    flow = Flow(example_config(), "the command", said.append, None, "r")
    monkeypatch.setattr(Flow, "spark", lambda self: "a session")
    plan = FlowPlan(PreparePlan("example", "", 0, 0, None, None, None, False, ()), None, "r", False, None)
    return lambda: flow._train(plan, lake, None, "r"), said


def test_a_fault_in_keeping_a_failed_runs_metrics_does_not_hide_why_it_failed(training, monkeypatch):
    def failed(*_):
        raise RankFailedError("rank 1 on host-b", "was killed by SIGKILL")

    monkeypatch.setattr("pipelines.flow.flow.train", failed)
    train, said = training
    with pytest.raises(RankFailedError, match="rank 1 on host-b: was killed by SIGKILL"):
        train()
    assert said == ["train: metrics and report of the run are not whole: tables/runs: cannot be written: No space left on device"]


def test_when_only_the_metrics_of_a_complete_run_cannot_be_loaded_that_is_said(training, monkeypatch):
    monkeypatch.setattr("pipelines.flow.flow.train", lambda *_: None)
    train, said = training
    with pytest.raises(StorageError):
        train()
    assert said == ["train: run r is complete, only its metrics are not in the tables yet; the report job loads them"]
