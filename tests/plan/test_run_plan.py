"""What a run is going to do is refused where it cannot be done."""

from __future__ import annotations

import pytest

from pipelines.errors import ConfigError, DataError
from pipelines.lake.paths import Lake
from pipelines.models.facts import model_facts
from pipelines.plan.run_plan import plan_run
from tests.support.example_data import example_config, publish_example
from tests.support.image_data import publish_images


def test_more_steps_than_the_tables_count_are_refused(tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_example(lake)
    config = example_config(train__steps=None, train__epochs=2**31 - 1)
    with pytest.raises(ConfigError, match=r"train.epochs: 2,147,483,647 epochs of \d+ steps are more than"):
        plan_run(config, manifest, model_facts(config.recipe, manifest), "run", lake)


def test_a_size_that_the_recipe_leaves_to_the_data_is_the_datas_and_one_that_it_gives_has_to_be(tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_images(lake)
    images = {"kind": "images", "inputs": [{"path": "none"}]}
    for channels in (None, 1):
        config = example_config(prepare={**images, "channels": channels}, model={"kind": "cnn"})
        assert plan_run(config, manifest, model_facts(config.recipe, manifest), "run", lake).steps == 10
    config = example_config(prepare={**images, "channels": 3}, model={"kind": "cnn"})
    with pytest.raises(DataError, match="has channels 1, prepare.channels is 3; prepare the dataset again"):
        plan_run(config, manifest, model_facts(config.recipe, manifest), "run", lake)
