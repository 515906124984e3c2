"""An evaluation is published by the process that holds it."""

from types import SimpleNamespace

import pytest

from pipelines.errors import AlreadyRunningError
from pipelines.lake.paths import Lake
from pipelines.launch import evaluating
from tests.support.claim_holder import take_over
from tests.support.example_data import example_config


@pytest.mark.parametrize("taken", [False, True])
def test_what_ranks_found_is_published_unless_another_process_took_the_evaluation_over(tmp_path, monkeypatch, taken):
    lake = Lake.at(tmp_path)
    folder = lake.run("r").evaluated("best-test")
    plan = SimpleNamespace(folder=folder, complete=False,
                           ranks=SimpleNamespace(lake=lake, manifest=None, earlier=None, config=example_config()))
    for name in ("check_shards_present", "check_code_as_trained", "check_cluster", "replace"):
        monkeypatch.setattr(evaluating, name, lambda planned, *args, **facts: planned)
    layout = plan.ranks.config.platform.layout
    monkeypatch.setattr(evaluating, "attempt_plan", lambda *args: SimpleNamespace(layout=layout, model_code={}))
    monkeypatch.setattr(evaluating, "begin_evaluation", lambda *args: 0)

    def ranks(*args):
        lake.store.put(folder.findings(0), "{}")
        if taken:
            take_over(lake.store, folder.claim)

    monkeypatch.setattr(evaluating, "run_gang", ranks)
    if taken:
        with pytest.raises(AlreadyRunningError, match="another process took it over"):
            evaluating.evaluate_model(None, plan, None)
    else:
        assert evaluating.evaluate_model(None, plan, None)
    assert (lake.store.facts(folder.result) is not None) == (not taken)
