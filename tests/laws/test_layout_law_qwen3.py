"""The layout law for today's architecture, with each optimizer: replicas and segments change nothing that is learned."""

import pytest

from tests.laws.test_layout_law_split import of_kind, trained

pytestmark = pytest.mark.processes

QWEN3 = {"kind": "qwen3", "num_layers": 6, "num_heads": 2, "num_key_value_heads": 1, "head_width": 8, "width": 16}
MODELS = {"qwen3": QWEN3, "untied": {**QWEN3, "tied_embeddings": False}, "llama": {**QWEN3, "kind": "llama"}}
OPTIMIZERS = {"adamw": 1e-6, "muon": 1e-5}  # the greatest distance of the weights, of their norm
LAYOUTS = [(2, 1, "1f1b"), (4, 1, "1f1b"), (1, 2, "zero_bubble"), (1, 4, "1f1b"), (2, 2, "interleaved_1f1b")]
CASES = [("qwen3", "adamw"), ("qwen3", "muon"), ("untied", "muon"), ("llama", "adamw")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return {case: trained(tmp_path_factory.mktemp("1x1"), MODELS[case[0]], 1, 1, optimizer=settings(case[1])) for case in CASES}


def settings(optimizer):
    return {"kind": optimizer, "learning_rate": 3e-3}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "{}x{}-{}".format(*layout))
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case))
def test_losses_and_weights_do_not_depend_on_the_layout(tmp_path, alone, case, layout):
    num_replicas, num_segments, schedule = layout
    records, weights = trained(tmp_path, MODELS[case[0]], num_replicas, num_segments, optimizer=settings(case[1]),
                               layout__schedule=schedule, layout__micro_batch_samples=2)
    expected, expected_weights = alone[case]
    for kind in ("step", "evaluation"):
        assert [record["loss"] for record in of_kind(records[0], kind)] == pytest.approx(
            [record["loss"] for record in of_kind(expected[0], kind)], rel=1e-5), kind
    assert of_kind(records[0], "step")[-1]["loss"] < of_kind(records[0], "step")[0]["loss"] - 0.1
    assert weights.keys() == expected_weights.keys()
    norm = sum(float(value.square().sum()) for value in expected_weights.values()) ** 0.5
    distance = sum(float((value - expected_weights[name]).square().sum()) for name, value in weights.items()) ** 0.5
    assert distance <= OPTIMIZERS[case[1]] * norm
