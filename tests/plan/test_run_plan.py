"""What a run is going to do is refused where it cannot be done."""

from __future__ import annotations

import pytest

from pipelines.errors import ConfigError
from pipelines.lake.paths import Lake
from pipelines.models.facts import model_facts
from pipelines.plan.run_plan import plan_run
from tests.example_data import example_config, publish_example


def test_more_steps_than_the_tables_count_are_refused(tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_example(lake)
    config = example_config(train__steps=None, train__epochs=2**31 - 1)
    with pytest.raises(ConfigError, match=r"train.epochs: 2,147,483,647 epochs of \d+ steps are more than"):
        plan_run(config, manifest, model_facts(config.recipe, manifest), "run", lake)
