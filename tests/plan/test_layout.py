"""The automatic layout, what a layout may not be, and how well memory is foretold."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.optimizers import AdamW
from pipelines.config.platform import Layout
from pipelines.errors import ConfigError, ResourceError
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.lake.store import FolderStore
from pipelines.launch.local import prepare_run, run_attempt
from pipelines.models.build import build_model
from pipelines.models.facts import model_facts
from pipelines.models.gpt.facts import facts as gpt_facts
from pipelines.plan.layout import Room, check_split, choose_layout, planned_split
from pipelines.plan.memory import FeedFacts, rank_bytes
from pipelines.plan.run_plan import cycle_time_ms, plan_run
from pipelines.plan.split_plan import SplitPlan, cut_by_cost
from pipelines.train.probe import facts_of
from tests.support.example_data import example_config, language, publish_example
from tests.support.own_models import with_constant_buffers

GIB = 1024**3
AUTO = Layout.model_validate("auto")


def large(**overrides):
    """A recipe whose model has 90 million parameters: 1.4 GiB of weights, gradients and moments."""
    return example_config(model__num_layers=12, model__num_heads=8, model__width=768, prepare__sequence_length=128,
                          train__global_batch_samples=32, data__num_lanes=8, **overrides).recipe


def chosen(recipe, slots, memory_bytes, layout=AUTO, num_rows=10_000, max_replicas=100, **feed):
    facts = gpt_facts(recipe.model, language(8192, recipe.prepare.sequence_length))
    small = {"window_steps": 4, "row_bytes": 528, "largest_row_group_rows": 4, "read_ahead_bytes": 10_000}
    return choose_layout(facts, FeedFacts(num_rows, **small | feed), recipe, layout, Room(slots, memory_bytes, max_replicas))


def ranges_of(counts):
    return SplitPlan(1, 1, "gpipe", tuple(counts), 1, 1).ranges


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=24), st.data())
def test_every_layer_is_in_exactly_one_part_and_no_part_is_empty(costs, data):
    num_parts = data.draw(st.integers(1, len(costs)))
    counts = cut_by_cost(costs, num_parts)
    assert len(counts) == num_parts
    assert min(counts) >= 1
    assert [i for layers in ranges_of(counts) for i in layers] == list(range(len(costs)))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(1, 8))
def test_no_other_cut_has_a_cheaper_most_expensive_part(costs, num_parts):
    if num_parts > len(costs):
        with pytest.raises(ValueError, match="cannot be cut"):
            cut_by_cost(costs, num_parts)
        return

    def least(rest, parts):
        if parts == 1:
            return sum(rest)
        return min(max(sum(rest[:n]), least(rest[n:], parts - 1)) for n in range(1, len(rest) - parts + 2))

    counts = cut_by_cost(costs, num_parts)
    assert max(sum(costs[i] for i in layers) for layers in ranges_of(counts)) == least(costs, num_parts)


def test_a_model_that_fits_a_rank_is_not_split():
    choice = chosen(large(), slots=4, memory_bytes=16 * GIB)
    assert (choice.layout.num_replicas, choice.layout.num_segments) == (4, 1)
    assert choice.reason.startswith("data parallel")


def test_a_model_that_fits_only_split_gets_the_fewest_segments_and_the_rest_as_replicas():
    choice = chosen(large(), slots=4, memory_bytes=int(1.5 * GIB))
    assert (choice.layout.num_replicas, choice.layout.num_segments) == (2, 2)
    assert choice.reason.startswith("hybrid")
    assert [c.verdict.split()[0] for c in choice.candidates][:2] == ["needs", "chosen"]
    assert all(c.bubble <= AUTO.max_bubble for c in choice.candidates if c.verdict == "chosen")
    assert chosen(large(), slots=2, memory_bytes=int(1.5 * GIB)).reason.startswith("layer split")


def test_a_model_that_does_not_fit_even_fully_split_says_how_much_it_needs():
    with pytest.raises(ResourceError, match=r"needs \d\.\d\d GiB on a rank even with 4 segments, a rank has 0.50 GiB"):
        chosen(large(), slots=4, memory_bytes=GIB // 2)


def test_given_numbers_stay_and_only_the_others_are_chosen():
    layout = Layout.model_validate({"num_replicas": "auto", "num_segments": 2, "micro_batch_samples": 4})
    assert chosen(large(), 4, 16 * GIB, layout).layout.model_dump(include={"num_replicas", "num_segments",
        "micro_batch_samples"}) == {"num_replicas": 2, "num_segments": 2, "micro_batch_samples": 4}


def test_replicas_divide_the_lanes():
    assert chosen(large(), slots=7, memory_bytes=16 * GIB).layout.num_replicas == 4


def test_no_more_replicas_than_there_are_rows():
    assert chosen(large(), slots=8, memory_bytes=16 * GIB, num_rows=3).layout.num_replicas == 2


def test_no_more_replicas_than_can_find_each_other():
    assert chosen(large(), slots=8, memory_bytes=16 * GIB, max_replicas=7).layout.num_replicas == 4


def test_what_the_feed_holds_counts_as_memory_of_the_first_and_last_segments_ranks():
    assert chosen(large(), slots=4, memory_bytes=4 * GIB).layout.num_segments == 1
    with pytest.raises(ResourceError, match=r"the model needs .* lower reader.read_ahead_bytes"):
        chosen(large(), slots=4, memory_bytes=4 * GIB, window_steps=10**6)
    recipe = large()
    facts = gpt_facts(recipe.model, language(8192, 128))
    way = planned_split(facts, recipe, Layout(num_replicas=1, num_segments=4, micro_batch_samples=8))
    small, larger = (rank_bytes(facts, FeedFacts(10_000, window_steps, 528, 4, 10_000), way, AdamW())
                     for window_steps in (1000, 3000))
    assert [more - less for more, less in zip(larger, small, strict=True)] == [2000 * 32 * 528, 0, 0, 2000 * 32 * 528]


def test_what_a_feed_is_foretold_to_hold_is_what_it_holds(tmp_path):
    from pipelines.feed.batches import SampleOrder, Share, TrainingFeed

    manifest = publish_example(Lake.at(tmp_path), train_rows=3000, rows_per_shard=1000, rows_per_row_group=100)
    config = example_config(data__window_row_groups=4)
    feed = FeedFacts.of(config.recipe.data, 8, config.platform.reader, manifest)
    with TrainingFeed(FolderStore(tmp_path / "datasets/example/v1"), manifest, config.platform.reader,
                      SampleOrder(config.recipe.data, seed=0, global_batch_samples=8), Share(4, num_replicas=2)) as reading:
        decoding_bytes = 2 * 1024**2 + 8 * 100 * feed.row_bytes
        assert feed.held_bytes(samples_per_step=4) == reading.buffer_bytes + decoding_bytes
    assert feed.rows == 3000


def test_the_predicted_time_of_the_run_grows_with_the_data():
    recipe = large(train__steps=None, train__epochs=2)
    short, long = (chosen(recipe, 2, 16 * GIB, num_rows=n).candidates[0] for n in (320, 3200))
    assert long.run_s == pytest.approx(10 * short.run_s)
    assert short.run_s == pytest.approx(20 * short.step_s)


def test_auto_survives_being_written_as_json():
    assert json.loads(AUTO.model_dump_json())["num_replicas"] == "auto"
    assert Layout.model_validate_json(AUTO.model_dump_json()) == AUTO


def test_the_bubble_is_that_of_the_schedule():
    recipe = large()
    way = planned_split(gpt_facts(recipe.model, language(8192, 128)), recipe,
                        Layout(num_replicas=1, num_segments=4, micro_batch_samples=4))
    assert (way.micro_batches, way.bubble) == (8, pytest.approx(3 / 11))


def test_horovods_cycle_follows_the_step_within_bounds():
    assert [cycle_time_ms(step_s) for step_s in (0.01, 1.0, 2.0, 60.0)] == [1.0, 10.0, 20.0, 50.0]


@pytest.mark.parametrize(("layout", "message"), [
    ({"num_segments": 9}, r"layout.num_segments: 9 segments need 9 layers, the model has 4 .*; use at most 4"),
    ({"num_segments": 3, "schedule": "interleaved_1f1b"}, r"3 segments of 2 parts need 6 layers.*; use at most 2"),
    ({"num_segments": 2, "cut": [1, 2]}, r"layout.cut: \[1, 2\] is not 2 counts that add up to 4 layers"),
    ({"num_segments": 4, "micro_batch_samples": 4}, r"layout.micro_batch_samples: 4 makes 2 micro-batches .*; use 1 or 2"),
    ({"num_segments": 2, "schedule": "interleaved_1f1b", "micro_batch_samples": 8},
     r"layout.micro_batch_samples: 8 makes 5 micro-batches .* 40 samples, which the schedule interleaved_1f1b cannot run"),
])
def test_a_layout_that_the_model_or_its_schedule_cannot_have_is_refused(layout, message):
    recipe = example_config(train__global_batch_samples=40 if "5 micro" in message else 8).recipe
    facts = gpt_facts(recipe.model, language(32, 16))
    given = Layout.model_validate({"num_replicas": 1, "micro_batch_samples": 2, **layout})
    with pytest.raises(ConfigError, match=message):
        check_split(facts, recipe, given)


@pytest.mark.parametrize(("factory", "message"), [
    ("tests.support.own_models:not_layered", "returned Sequential, not a layered model"),
    ("tests.support.own_models:nothing", "tests.support.own_models has no nothing"),
    ("no_such_package:build", "cannot be imported"),
    ("tests.support.own_models:with_running_statistics",
     r"layer norm: changes its buffers as it trains \(running_mean, running_var, num_batches_tracked\)"),
    ("tests.support.own_models:with_state_that_is_no_tensor", r"neither a parameter nor a buffer \(middle._extra_state\)"),
    ("tests.support.own_models:with_a_buffer_of_no_saved_type", "has middle.waves of type torch.complex128"),
    ("tests.support.own_models:layers_that_do_not_fit", "layer out: failed on a sample"),
])
@pytest.mark.processes
def test_a_factory_that_cannot_be_trained_is_refused_before_anything_is_launched(tmp_path, factory, message):
    lake = Lake.at(tmp_path)
    with pytest.raises(ConfigError, match=message):
        prepare_run(lake, example_config(model={"factory": factory}), publish_example(lake))


@pytest.mark.processes
def test_a_model_whose_shapes_depend_on_the_data_is_refused_before_launch_where_it_is_split(tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_example(lake)
    config = example_config(model={"factory": "tests.support.own_models:with_data_dependent_shapes"}, layout__num_segments=2)
    with pytest.raises(ConfigError, match=r"num_segments: 2: model.factory, layer passing: its shapes depend on the data"):
        prepare_run(lake, config, manifest)
    facts = model_facts(config.recipe, manifest)
    assert plan_run(config.with_layout(Layout(num_replicas=1)), manifest, facts, "whole", lake).steps == 10


def test_what_is_counted_by_hand_for_the_gpt_is_what_a_probe_of_it_finds():
    model = example_config(model__num_layers=3, model__num_heads=4, model__width=64).recipe.model
    task = language(512, 64)
    counted, probed = gpt_facts(model, task), facts_of(build_model(model, task.sizes, seed=0), task)
    for by_hand, found in zip(counted.layers, probed.layers, strict=True):
        assert (by_hand.name, by_hand.parameters, by_hand.tied_parameters, by_hand.output_bytes_per_sample) == (
            found.name, found.parameters, found.tied_parameters, found.output_bytes_per_sample)
        assert found.saved_bytes_per_sample == pytest.approx(by_hand.saved_bytes_per_sample, rel=0.35, abs=4096)


def test_constants_that_a_model_keeps_as_buffers_are_in_the_memory_of_the_rank_that_holds_them():
    width = 100
    facts = facts_of(with_constant_buffers(32, 16, width, depth=4), language(32, 16))
    own_bytes = width * (4 + 4 + 1 + 8) + 8  # two of floats, truth values, complex numbers; a whole number
    shared_bytes = 4  # counts in the first layer that has it
    assert [layer.buffer_bytes for layer in facts.layers] == [0, own_bytes + shared_bytes, own_bytes, own_bytes, own_bytes, 0]
    without = replace(facts, layers=tuple(replace(layer, buffer_bytes=0) for layer in facts.layers))
    feed = FeedFacts(rows=37, window_steps=2, row_bytes=100, largest_row_group_rows=4, read_ahead_bytes=1000)
    for counts, held in (((6,), [4 * own_bytes + shared_bytes]), ((3, 3), [2 * own_bytes + shared_bytes, 2 * own_bytes])):
        split = SplitPlan(1, len(counts), "1f1b", counts, micro_batches=4, micro_batch_samples=2)
        more, less = (rank_bytes(each, feed, split, AdamW()) for each in (facts, without))
        assert [one - other for one, other in zip(more, less, strict=True)] == held


OF_512 = {"num_layers": 8, "num_heads": 8, "width": 512}
QWEN3 = {"kind": "qwen3", "num_key_value_heads": 4, **OF_512}


@pytest.mark.parametrize(("replicas", "segments", "precision", "model", "optimizer"), [
    *((*layout, OF_512, {"kind": "adamw"}) for layout in (
        (1, 1, "fp32"), (2, 1, "fp32"), (1, 2, "fp32"), (1, 4, "fp32"), (2, 2, "fp32"), (1, 1, "bf16"))),
    (2, 1, "fp32", QWEN3, {"kind": "muon"}), (1, 2, "fp32", QWEN3, {"kind": "muon"})],
    ids=lambda value: value.get("kind", "gpt") if isinstance(value, dict) else str(value))
@pytest.mark.processes
def test_the_peak_of_memory_is_foretold_within_a_quarter(tmp_path, replicas, segments, precision, model, optimizer):
    lake = Lake.at(tmp_path)
    manifest = publish_example(lake, sequence_length=256)
    config = example_config(
        layout__num_replicas=replicas, layout__num_segments=segments, layout__micro_batch_samples=4, model=model,
        optimizer=optimizer, prepare__sequence_length=256, train__global_batch_samples=16,
        train__steps=3, task__sample_tokens=0, train__precision=precision, schedule__warmup_steps=1)
    recipe = config.recipe
    facts = model_facts(recipe, manifest)
    split = planned_split(facts, recipe, config.platform.layout)
    if segments > 1:  # cut as planned, not as ranks would measure it on this machine
        config = config.with_layout(config.platform.layout.model_copy(update={"cut": split.counts}))
    run = prepare_run(lake, config, manifest)
    run_attempt(run, timeout_s=240)
    feed = FeedFacts.of(recipe.data, 16, config.platform.reader, manifest)
    foretold = rank_bytes(facts, feed, split, recipe.optimizer)
    for rank in range(replicas * segments):
        peak = [r for r in RecordTail(run.live(0).record(rank)).new_records() if r["kind"] == "step"][-1]["memory_bytes"]
        assert foretold[rank % segments] == pytest.approx(peak, rel=0.25), (rank, foretold, peak)


@pytest.mark.processes
def test_a_ranks_peak_is_its_own_and_not_that_of_who_started_it():
    large = bytearray(b"x") * 10**9
    command = "import torch; from pipelines.train.loop import peak_memory_bytes; print(peak_memory_bytes(torch.device('cpu')))"
    peak = int(subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True, timeout=120).stdout)
    assert 10**8 < peak < len(large)
