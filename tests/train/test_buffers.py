"""Constants that a model keeps as buffers are trained with, saved and loaded, whole and split."""

import pytest
import torch

from pipelines.lake.paths import Lake
from pipelines.launch.local import prepare_run
from pipelines.models.build import build_model
from pipelines.models.exported_model import load_model
from pipelines.models.layered import bits_of
from tests.support.example_data import END_OF_TEXT, example_config, publish_example, sizes
from tests.support.rank_processes import run_workers

pytestmark = pytest.mark.processes

FACTORY = "tests.support.own_models:with_constant_buffers"


@pytest.mark.parametrize("num_segments", [1, 2])
def test_a_model_with_constant_buffers_is_exported_with_them_whole_and_split(tmp_path, num_segments):
    lake = Lake.at(tmp_path)
    config = example_config(model={"factory": FACTORY}, layout__num_replicas=1, layout__num_segments=num_segments,
                            layout__cut="parameters")
    run = prepare_run(lake, config, publish_example(lake))
    run_workers(run)
    begun = build_model(config.recipe.model, sizes(END_OF_TEXT + 1, 16), config.recipe.train.seed)
    loaded = load_model(next(lake.root.glob("models/*/last")), factory=FACTORY).model
    buffers = {name for name, _ in begun.named_buffers()}
    assert {"scaled_0.scale_D", "scaled_3.even_D", "scaled_3.version", "scaled_3.turns_D"} <= buffers
    state = begun.unique_state()
    for name, value in loaded.unique_state().items():
        assert torch.equal(bits_of(value), bits_of(state[name])) == (name in buffers), name
