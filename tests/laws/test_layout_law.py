"""The layout law and the row law on real ranks: the recipe alone decides what is learned."""

import pytest
from safetensors.torch import load_file

from pipelines.errors import SparkringError
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.launch.local import prepare_run
from tests.support.example_data import example_config, publish_example
from tests.support.rank_processes import run_workers

pytestmark = pytest.mark.processes


def trained(folder, num_replicas, **overrides):
    """Step losses, evaluations, final weights and rank records of one training."""
    lake = Lake.at(folder)
    manifest = publish_example(lake)
    config = example_config(layout__num_replicas=num_replicas, **overrides)
    run = prepare_run(lake, config, manifest)
    run_workers(run)
    records = [RecordTail(run.live(0).record(rank)).new_records() for rank in range(num_replicas)]
    steps = [record for record in records[0] if record["kind"] == "step"]
    evaluations = [record["loss"] for record in records[0] if record["kind"] == "evaluation"]
    weights = load_file(next(lake.root.glob("models/*/last")) / "model.safetensors")
    return steps, evaluations, weights, records


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("1x1"), 1)


@pytest.mark.parametrize("num_replicas", [2, 4])
@pytest.mark.parametrize("reader", ["arrow", "petastorm"])
def test_losses_and_weights_do_not_depend_on_the_layout_or_the_reader(tmp_path, alone, num_replicas, reader):
    steps, evaluations, weights, records = trained(tmp_path, num_replicas, reader__kind=reader, layout__micro_batch_samples=2)
    assert [step["loss"] for step in steps] == pytest.approx([step["loss"] for step in alone[0]], rel=1e-5)
    assert [step["gradient_norm"] for step in steps] == pytest.approx([s["gradient_norm"] for s in alone[0]], rel=1e-4)
    assert evaluations == pytest.approx(alone[1], rel=1e-5)
    assert weights.keys() == alone[2].keys()
    for name, value in weights.items():
        assert (value - alone[2][name]).abs().max().item() <= 1e-6, name
    for rank_records in records:
        assert [r["kind"] for r in rank_records if r["kind"] in ("start", "end")] == ["start", "end"]
        assert sum(r["kind"] == "step" for r in rank_records) == 10


def test_the_model_learns(alone):
    assert alone[0][-1]["loss"] < 0.95 * alone[0][0]["loss"]


def test_every_row_weighs_once_in_an_epoch(alone):
    steps_per_epoch = 5  # 37 rows in 4 lanes, 2 rows of each lane a step
    for epoch in (0, 1):
        samples = [step["global_samples"] for step in alone[0] if step["epoch"] == epoch]
        assert len(samples) == steps_per_epoch
        assert sum(samples) == 37


def test_the_evaluation_counts_every_validation_row_once(alone):
    evaluations = [record for record in alone[3][0] if record["kind"] == "evaluation"]
    assert [record["samples"] for record in evaluations] == [9, 9]


def test_an_evaluation_reads_no_more_rows_than_the_recipe_says_and_tells_of_its_progress(tmp_path):
    _, _, _, records = trained(tmp_path, 2, train__evaluation_rows=5)
    assert [record["samples"] for record in records[0] if record["kind"] == "evaluation"] == [5, 5]
    for rank_records in records:
        phases = [record["phase"] for record in rank_records if record["kind"] == "progress"]
        assert phases == ["loading the model", "evaluating", "saving", "evaluating", "saving", "saving"]  # best, best, last


def test_a_validation_loss_that_is_not_finite_stops_the_run_with_its_step(tmp_path):
    lake = Lake.at(tmp_path)
    config = example_config(optimizer__learning_rate=1e30, train__clip_norm=None, train__steps=1, schedule__warmup_steps=0)
    run = prepare_run(lake, config, publish_example(lake))
    with pytest.raises(SparkringError, match="step 1: the validation loss is not finite"):
        run_workers(run)
    end = RecordTail(run.live(0).record(0)).new_records()[-1]
    assert (end["kind"], end["status"], end["error"]["exit_code"]) == ("end", "failed", 6)


def test_a_loss_that_is_not_finite_stops_the_run_with_step_and_rank(tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_example(lake)
    config = example_config(layout__num_replicas=2, optimizer__learning_rate=1e30, train__clip_norm=None)
    run = prepare_run(lake, config, manifest)
    with pytest.raises(SparkringError, match=r"step \d+, rank \d+: the (loss|gradient) is not finite") as caught:
        run_workers(run)
    assert "ended with exit code 6" in str(caught.value)
    end = RecordTail(run.live(0).record(0)).new_records()[-1]
    assert (end["kind"], end["status"], end["error"]["exit_code"]) == ("end", "failed", 6)
