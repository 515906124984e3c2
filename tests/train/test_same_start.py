"""Ranks that would begin with different models are refused before the first step, with both named."""

import pytest

from pipelines.errors import ConfigError, SparkringError
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.launch.local import prepare_run
from tests.support.example_data import example_config, publish_example
from tests.support.rank_processes import run_workers

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("layout", [(2, 1), (1, 2)])
def test_a_factory_that_draws_other_weights_on_another_rank_is_refused_by_all(tmp_path, layout):
    num_replicas, num_segments = layout
    lake = Lake.at(tmp_path)
    config = example_config(layout__num_replicas=num_replicas, layout__num_segments=num_segments, layout__cut="parameters",
                            model={"factory": "tests.support.own_models:drawn_from_numpy"})
    run = prepare_run(lake, config, publish_example(lake))
    with pytest.raises(SparkringError, match="ended with exit code 2"):
        run_workers(run)
    errors = [RecordTail(run.live(0).record(rank)).new_records()[-1]["error"] for rank in range(2)]
    assert errors[0] == errors[1]
    assert errors[0]["exit_code"] == ConfigError.exit_code
    assert not errors[0]["peer_lost"]
    assert errors[0]["place"] == "model"
    assert errors[0]["problem"].startswith("out.weight on rank 1 (")
    assert ") is not what rank 0 (" in errors[0]["problem"]
    assert "torch's random numbers" in errors[0]["remedy"]
