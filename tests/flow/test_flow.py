"""The order of stages, and what the flow does when a stage, and then what follows it, goes wrong."""

from types import SimpleNamespace

import pytest

from pipelines.errors import DataError, RankFailedError, StorageError
from pipelines.flow import flow as the_flow
from pipelines.flow.flow import JOBS, STAGES, Flow
from pipelines.flow.stage import Job, Planned, Stage
from pipelines.flow.train_stage import train_run
from pipelines.lake.paths import Lake
from pipelines.launch.planning import TrainPlan
from tests.support.example_data import example_config


@pytest.fixture
def job(tmp_path):
    said = []
    with Job(example_config(storage__root=str(tmp_path)), None, "the command", said.append, None) as job:
        yield job


def recorded(monkeypatch, job, *, complete=()):
    """Stages that only say what is done with them, one more behind those that there are."""
    done = []

    def stage(name, needs):
        def plan(_, *results):
            done.append(f"plan {name} of {results}")
            return Planned(name, {name: "would be done"}, f"old {name}" if name in complete else None, name)

        def run(_, content):
            done.append(f"run {content}")
            return f"new {content}"

        return Stage(name, needs, plan, run, check=lambda _: done.append(f"check {name}"),
                     admit=lambda _: done.append(f"admit {name}"))

    monkeypatch.setattr(the_flow, "STAGES", (*(stage(each.name, each.needs) for each in STAGES),
                                             stage("compare", ("prepare", "train"))))
    return done


def test_a_stage_needs_only_stages_before_it_and_a_job_names_stages():
    names = [stage.name for stage in STAGES]
    assert all(need in names[:index] for index, stage in enumerate(STAGES) for need in stage.needs)
    assert {name for wanted in JOBS.values() for name in wanted} == set(names)


def test_every_wanted_stage_is_planned_once_and_done_once_when_what_it_needs_is_there(monkeypatch, job):
    done = recorded(monkeypatch, job)
    flow = Flow(job, ("prepare", "train", "report", "compare"))
    flow.plan()
    assert flow.shown() == {"prepare": "would be done", "train": "follows from prepare",
                            "report": "follows from train", "compare": "follows from prepare and train"}
    flow.check()
    assert flow.run()["compare"] == "new compare"
    assert done == [
        "plan prepare of ()", "check prepare", "check train", "check report", "check compare",
        "admit train", "admit report", "admit compare", "run prepare", "plan train of ('new prepare',)", "run train",
        "plan report of ('new train',)", "run report", "plan compare of ('new prepare', 'new train')", "run compare"]


def test_what_is_complete_is_not_done_again_and_what_follows_it_is_planned_before_the_run(monkeypatch, job):
    done = recorded(monkeypatch, job, complete=("prepare", "train"))
    flow = Flow(job, ("prepare", "train", "report"))
    flow.plan()
    flow.check()
    results = flow.run()
    assert results == {"prepare": "old prepare", "train": "old train", "report": "new report"}
    assert [each for each in done if not each.startswith("plan")] == ["check report", "run report"]
    assert job.say.__self__ == ["prepare: prepare is complete, nothing to do", "train: train is complete, nothing to do"]


def test_a_stage_whose_need_is_neither_there_nor_wanted_is_refused_naming_the_job_that_makes_it(monkeypatch, job):
    done = recorded(monkeypatch, job)
    flow = Flow(job, ("train",))
    flow.plan()
    with pytest.raises(DataError, match="holds no complete result of stage prepare .*; run the prepare job first"):
        flow.check()
    assert not [each for each in done if each.startswith("run")]


@pytest.fixture
def training(tmp_path, monkeypatch, job):
    """A train stage that is about to run, whose metrics cannot be loaded; and what it says."""
    def full_disk(lake, run_id):
        raise StorageError("tables/runs", "cannot be written: No space left on device")

    monkeypatch.setattr("pipelines.flow.train_stage.load_run", full_disk)
    lake = Lake.at(tmp_path)
    lake.store.put(lake.run("r").state, "{}")
    monkeypatch.setattr(Job, "spark", lambda self: "a session")
    plan = TrainPlan(job.config, lake, None, "r", None, None, None)
    return lambda: train_run(job, plan), job.say.__self__


def test_a_fault_in_keeping_a_failed_runs_metrics_does_not_hide_why_it_failed(training, monkeypatch):
    def failed(*_):
        raise RankFailedError("rank 1 on host-b", "was killed by SIGKILL")

    monkeypatch.setattr("pipelines.flow.train_stage.train", failed)
    run, said = training
    with pytest.raises(RankFailedError, match="rank 1 on host-b: was killed by SIGKILL"):
        run()
    assert said == ["train: metrics and report of the run are not whole: tables/runs: cannot be written: No space left on device"]


def test_when_only_the_metrics_of_a_complete_run_cannot_be_loaded_that_is_said(training, monkeypatch):
    monkeypatch.setattr("pipelines.flow.train_stage.train", lambda *_: SimpleNamespace(fresh=True))
    run, said = training
    with pytest.raises(StorageError):
        run()
    assert said == ["train: run r is complete, only its metrics are not in the tables yet; the report job loads them"]
