"""The layout law and the row law for images, with what a layer draws or normalises as it trains."""

import pytest
from safetensors.torch import load_file

from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.launch.local import prepare_run
from tests.support.example_data import example_config, publish_example
from tests.support.image_data import publish_images
from tests.support.rank_processes import run_workers

pytestmark = pytest.mark.processes

CNN = {"kind": "cnn", "first_channels": 4, "second_channels": 6, "dense_width": 16}
RESNET = {"kind": "resnet", "blocks": [1, 1], "width": 4, "normalisation": "batch", "norm_samples": 2, "dropout": 0.2}
MODELS = {"cnn": CNN, "resnet": RESNET, "own": {"factory": "tests.support.own_models:of_images"},
          "gpt": {"num_layers": 4, "num_heads": 2, "width": 16, "dropout": 0.2}}
LAYOUTS = [(2, 1, "1f1b"), (4, 1, "1f1b"), (1, 2, "gpipe"), (1, 2, "zero_bubble"), (1, 4, "1f1b"), (2, 2, "1f1b")]


def trained(folder, model, num_replicas, num_segments, **overrides):
    """Records of rank 0, final weights."""
    lake = Lake.at(folder)
    manifest = publish_example(lake) if model is MODELS["gpt"] else publish_images(lake)
    augment = {"mirror": 0.5, "shift_pixels": 2, "least_kept": 0.8, "contrast": 0.3, "brightness": 0.2, "cover_pixels": 3}
    config = example_config(**{"data__augment": augment if model == CNN else None,
        "model": model, "layout__num_replicas": num_replicas, "layout__num_segments": num_segments, "layout__cut": "parameters",
        "optimizer": {"kind": "sgd", "learning_rate": 0.05}, "train__steps": 8, "train__evaluate_every_steps": 8, **overrides})
    run = prepare_run(lake, config, manifest)
    run_workers(run)
    return RecordTail(run.live(0).record(0)).new_records(), load_file(next(lake.root.glob("models/*/last")) / "model.safetensors")


def losses(records, kind="step"):
    return [record["loss"] for record in records if record["kind"] == kind]


def assert_same_training(one, other):
    """The layout law, of two results of ``trained``."""
    (records, weights), (expected, expected_weights) = one, other
    for kind in ("step", "evaluation"):
        assert losses(records, kind) == pytest.approx(losses(expected, kind), rel=1e-5), kind
    assert weights.keys() == expected_weights.keys()
    norm = sum(value.double().square().sum().item() for value in expected_weights.values()) ** 0.5
    apart = sum((value - expected_weights[name]).double().square().sum().item() for name, value in weights.items()) ** 0.5
    assert apart <= 1e-6 * norm


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return {name: trained(tmp_path_factory.mktemp("1x1"), model, 1, 1, layout__micro_batch_samples=4)
            for name, model in MODELS.items()}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "{}x{}-{}".format(*layout))
@pytest.mark.parametrize("name", MODELS)
def test_what_is_learned_with_what_is_drawn_does_not_depend_on_the_layout(tmp_path, alone, name, layout):
    num_replicas, num_segments, schedule = layout
    assert_same_training(trained(tmp_path, MODELS[name], num_replicas, num_segments, layout__schedule=schedule,
                                 layout__micro_batch_samples=2), alone[name])


def test_dropout_draws_and_another_seed_draws_otherwise(tmp_path, alone):
    still = trained(tmp_path / "still", {**CNN, "image_dropout": 0.0, "dense_dropout": 0.0}, 1, 1)
    assert losses(still[0])[0] != pytest.approx(losses(alone["cnn"][0])[0], rel=1e-3)  # the same weights at the first step


def test_every_image_weighs_once_in_an_epoch_and_the_model_learns(alone):
    records = [record for record in alone["cnn"][0] if record["kind"] == "step"]
    assert sum(record["global_samples"] for record in records if record["epoch"] == 0) == 37 == sum(
        record["global_units"] for record in records if record["epoch"] == 0)
    assert losses(alone["cnn"][0], "evaluation")[-1] < losses(alone["cnn"][0])[0]
