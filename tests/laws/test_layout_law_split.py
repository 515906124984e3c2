"""The layout law for split models: segments and schedules change nothing that is learned."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from pipelines.errors import SparkringError
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.lake.store import FolderStore
from pipelines.launch.local import prepare_run
from pipelines.launch.planning import plan_train
from pipelines.predict.language_model import load_language_model
from tests.support.example_data import example_config, publish_example
from tests.support.rank_processes import run_workers

pytestmark = pytest.mark.processes

GPT = {"num_layers": 6, "num_heads": 2, "width": 16}
MODELS = {"gpt": {**GPT, "tied_embeddings": False}, "tied gpt": {**GPT, "tied_embeddings": True},
          "residual": {"factory": "tests.support.own_models:residual", "depth": 6}}
LAYOUTS = [  # replicas, segments, schedule, samples of a micro-batch
    (1, 2, "gpipe", 3), (1, 2, "1f1b", 2), (1, 2, "interleaved_1f1b", 2), (1, 2, "zero_bubble", 2),
    (1, 4, "gpipe", 8), (1, 4, "1f1b", 2), (1, 4, "interleaved_1f1b", 2),
    (2, 2, "gpipe", 3), (2, 2, "gpipe", 8), (2, 2, "1f1b", 2), (2, 2, "interleaved_1f1b", 2),  # 8: more than a replica's share
    (2, 1, "1f1b", 3), (4, 1, "1f1b", 2)]


def trained(folder, model, num_replicas, num_segments, *, rows=(37, 9), **overrides):
    """All ranks' records, final weights. ``rows``: of train and of validation."""
    lake = Lake.at(folder)
    manifest = publish_example(lake, train_rows=rows[0], validation_rows=rows[1])
    config = example_config(layout__num_replicas=num_replicas, layout__num_segments=num_segments, model=model, **overrides)
    run = prepare_run(lake, config, manifest)
    run_workers(run)
    records = [RecordTail(run.live(0).record(rank)).new_records() for rank in range(num_replicas * num_segments)]
    return records, load_file(next(lake.root.glob("models/*/last")) / "model.safetensors")


def of_kind(records, kind):
    return [record for record in records if record["kind"] == kind]


def assert_same_training(one, other):
    """The layout law, of two results of ``trained``."""
    (records, weights), (expected, expected_weights) = one, other
    for field, tolerance in (("loss", 1e-5), ("gradient_norm", 1e-4)):
        assert [step[field] for step in of_kind(records[0], "step")] == pytest.approx(
            [step[field] for step in of_kind(expected[0], "step")], rel=tolerance), field
    assert [e["loss"] for e in of_kind(records[0], "evaluation")] == pytest.approx(
        [e["loss"] for e in of_kind(expected[0], "evaluation")], rel=1e-5)
    for one, other in zip(of_kind(records[0], "evaluation"), of_kind(expected[0], "evaluation"), strict=True):
        assert one["accuracy"] is not None
        assert one["perplexity"] == pytest.approx(math.exp(one["loss"]))
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=1.5 / one["units"])  # a tie may fall either way
    assert weights.keys() == expected_weights.keys()
    for parameter, value in weights.items():
        assert (value - expected_weights[parameter]).abs().max().item() <= 1e-6, parameter


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return {name: trained(tmp_path_factory.mktemp("1x1"), model, 1, 1) for name, model in MODELS.items()}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "{}x{}-{}".format(*layout))
@pytest.mark.parametrize("name", MODELS)
def test_losses_norms_and_weights_do_not_depend_on_how_the_model_is_split(tmp_path, alone, name, layout):
    num_replicas, num_segments, schedule, size = layout
    records, weights = trained(tmp_path, MODELS[name], num_replicas, num_segments, layout__schedule=schedule,
                               layout__micro_batch_samples=size)
    assert_same_training((records, weights), alone[name])
    # every rank tells of every step; the tokens whose loss the ranks computed are the global ones
    steps = [of_kind(each, "step") for each in records]
    for rank in range(num_replicas * num_segments):  # ranks in the middle need no samples and read none
        waited = sum(step["data_wait_s"] for step in steps[rank])
        assert (waited > 0) == (rank % num_segments in (0, num_segments - 1))
    for at, step in enumerate(steps[0]):
        assert sum(rank_steps[at]["units"] for rank_steps in steps) == step["global_units"]
        assert all(rank_steps[at]["loss"] == step["loss"] for rank_steps in steps)


LARGE = {"model": {"factory": "tests.support.own_models:large_tensors"}, "data__num_lanes": 12, "train__global_batch_samples": 24,
         "layout__micro_batch_samples": 4, "train__steps": 4, "train__evaluate_every_steps": 4, "train__clip_norm": 0.05,
         "optimizer__learning_rate": 1e-4}


@pytest.fixture(scope="module")
def large_alone(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("1x1"), num_replicas=1, num_segments=1, **LARGE)


@pytest.mark.parametrize("layout", [(2, 1), (3, 1), (1, 2), (2, 2)], ids=lambda layout: "{}x{}".format(*layout))
def test_norms_and_clipped_steps_do_not_depend_on_the_layout_where_millions_of_values_share_a_bucket(
        tmp_path, large_alone, layout):
    num_replicas, num_segments = layout
    records, _ = trained(tmp_path, num_replicas=num_replicas, num_segments=num_segments, **LARGE)
    for field in ("gradient_norm", "loss"):
        assert [step[field] for step in of_kind(records[0], "step")] == pytest.approx(
            [step[field] for step in of_kind(large_alone[0][0], "step")], rel=1e-6), field


@pytest.mark.parametrize(("layout", "rare_tokens"), [
    ((4, 1, "1f1b"), 3), ((1, 2, "zero_bubble"), 0), ((2, 2, "interleaved_1f1b"), 0)], ids=lambda case: str(case))
def test_a_parameter_that_takes_part_rarely_or_never_is_updated_alike_on_every_layout(tmp_path, layout, rare_tokens):
    num_replicas, num_segments, schedule = layout
    sometimes = {"model": {"factory": "tests.support.own_models:taking_part_sometimes", "rare_tokens": rare_tokens},
                 "optimizer__weight_decay": 1.0}
    expected = trained(tmp_path / "1x1", num_replicas=1, num_segments=1, **sometimes)
    assert_same_training(trained(tmp_path / "many", num_replicas=num_replicas, num_segments=num_segments,
                                 layout__micro_batch_samples=1, layout__schedule=schedule, **sometimes), expected)


@pytest.mark.parametrize("layout", [(1, 2, "1f1b"), (2, 2, "interleaved_1f1b")], ids=lambda layout: "{}x{}-{}".format(*layout))
def test_a_model_whose_first_segment_is_not_trained_learns_the_same_when_it_is_split(tmp_path, layout):
    num_replicas, num_segments, schedule = layout
    frozen = {"model": {"factory": "tests.support.own_models:with_frozen_beginning"}, "layout__cut": "parameters"}
    expected = trained(tmp_path / "1x1", num_replicas=1, num_segments=1, **frozen)
    assert_same_training(trained(tmp_path / "split", num_replicas=num_replicas, num_segments=num_segments,
                                 layout__schedule=schedule, layout__micro_batch_samples=2, **frozen), expected)


@pytest.mark.parametrize(("train_rows", "layout"), [(1, (4, 1)), (3, (4, 1)), (1, (2, 2))])
def test_replicas_without_rows_train_and_evaluate_with_the_others(tmp_path, train_rows, layout):
    rows = (train_rows, 1)  # the only validation row is not the first replica's either
    few = {"model": MODELS["tied gpt"], "rows": rows, "train__steps": 4, "train__evaluate_every_steps": 2}
    expected = trained(tmp_path / "1x1", num_replicas=1, num_segments=1, **few)
    found = trained(tmp_path / "many", num_replicas=layout[0], num_segments=layout[1], **few)
    assert_same_training(found, expected)
    assert [step["global_samples"] for step in of_kind(found[0][0], "step")] == [train_rows] * 4
    assert [e["samples"] for e in of_kind(found[0][0], "evaluation")] == [1, 1]


@pytest.mark.parametrize(("num_replicas", "num_segments"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_training_ends_on_all_ranks_when_evaluations_stay_without_a_new_best(tmp_path, num_replicas, num_segments):
    records, weights = trained(tmp_path, MODELS["gpt"], num_replicas, num_segments, layout__micro_batch_samples=2,
                               optimizer__learning_rate=1e-30, train__evaluate_every_steps=2, train__early_stop_evaluations=2)
    assert [e["step"] for e in of_kind(records[0], "evaluation")] == [2, 4, 6]  # the first is the best, two are not better
    for each in records:
        assert [step["step"] for step in of_kind(each, "step")] == [1, 2, 3, 4, 5, 6]
        assert of_kind(each, "end")[0]["status"] == "completed"
        assert of_kind(each, "end")[0]["step"] == 6
    assert weights


@pytest.mark.parametrize("num_segments", [1, 2])
def test_a_compiled_model_learns_the_same(tmp_path, alone, num_segments):
    try:
        records, weights = trained(tmp_path, MODELS["tied gpt"], 1, num_segments, layout__micro_batch_samples=2,
                                   layout__compile=True)
    except SparkringError as error:  # torch's own limit, which the rank has to name
        assert " " in torch.__file__
        assert "layout.compile: torch cannot compile from a path with a space in it" in str(error)
        return
    assert " " not in torch.__file__
    expected, expected_weights = alone["tied gpt"]
    assert [step["loss"] for step in of_kind(records[0], "step")] == pytest.approx(
        [step["loss"] for step in of_kind(expected[0], "step")], rel=1e-5)
    for parameter, value in weights.items():
        assert (value - expected_weights[parameter]).abs().max().item() <= 1e-5, parameter


def test_a_cut_by_cost_is_measured_once_and_remembered(tmp_path):
    records, _ = trained(tmp_path, MODELS["residual"], 1, 2, layout__micro_batch_samples=2)
    (profile,) = (tmp_path / "profiles").glob("*.json")
    assert list(json.loads(profile.read_text())["layer_seconds"]) == [
        "lookup", *(f"residual_{i}" for i in range(6)), "logits"]
    assert [of_kind(each, "cut")[0]["parts"] for each in records] == [of_kind(records[0], "cut")[0]["parts"]] * 2
    costs = dict.fromkeys(json.loads(profile.read_text())["layer_seconds"], 1.0) | {"lookup": 100.0}
    profile.write_text(json.dumps({"layer_seconds": costs}))  # what the next plan is made by, and nobody measures again
    config = example_config(layout__num_segments=2, model=MODELS["residual"], layout__micro_batch_samples=2, train__seed=7)
    lake = Lake.at(tmp_path)
    plan = plan_train(config, lake, Manifest.load(FolderStore(next(lake.root.glob("datasets/*/v1")))), None).attempt
    assert (plan.cut_is_measured, plan.split.counts, lake.root / plan.profile) == (False, (1, 7), profile)
    profile.write_text('{"layer_seconds": {"lookup": ')  # only a memory: damaged, it is measured again
    manifest = Manifest.load(FolderStore(next(lake.root.glob("datasets/*/v1"))))
    assert plan_train(config, lake, manifest, None).attempt.cut_is_measured


def test_a_given_cut_is_taken(tmp_path):
    records, _ = trained(tmp_path, MODELS["residual"], 1, 2, layout__micro_batch_samples=2, layout__cut=[6, 2])
    assert of_kind(records[1], "cut")[0]["parts"] == ["lookup to residual_4", "residual_5 to logits"]


def test_the_timeline_of_a_step_has_every_micro_batch_forth_and_back(tmp_path):
    records, _ = trained(tmp_path, MODELS["gpt"], 1, 2, layout__micro_batch_samples=2)
    for rank, each in enumerate(records):
        (timeline,) = of_kind(each, "timeline")
        found = sorted((kind, part, micro_batch) for kind, part, micro_batch, _, _ in timeline["work"] if kind != "loss")
        assert found == sorted((kind, rank, m) for kind in ("forward", "backward") for m in range(4))


def test_a_users_model_is_exported_and_loaded_only_by_who_names_its_factory(tmp_path):
    trained(tmp_path, MODELS["residual"], 1, 2, layout__micro_batch_samples=2)
    folder = next(tmp_path.glob("models/*/best"))
    loaded = load_language_model(folder, factory="tests.support.own_models:residual")
    assert len(loaded.generate("a", 5)) > 1
    with pytest.raises(Exception, match=r"was made by the factory tests\.support\.own_models:residual"):
        load_language_model(folder)
