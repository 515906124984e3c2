"""A model that goes on from a folder: one step is transformers' own, and no layout changes what is learned."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from pipelines.errors import RankFailedError
from pipelines.lake.paths import Lake
from pipelines.launch.local import prepare_run
from tests.laws.test_layout_law_split import assert_same_training, of_kind, trained
from tests.support.example_data import example_config, publish_example
from tests.support.pretrained_folders import save_pretrained
from tests.support.rank_processes import run_workers

pytestmark = pytest.mark.processes

ROWS, LEARNING_RATE, DECAY = 8, 1e-3, 0.1
EPSILON = 1e-4  # well above what rounding leaves of a gradient: AdamW's first step divides each by its own size
ADAMW = {"kind": "adamw", "learning_rate": LEARNING_RATE, "weight_decay": DECAY, "beta1": 0.9, "beta2": 0.95, "epsilon": EPSILON}


def rows_of(lake: Lake) -> tuple[torch.Tensor, torch.Tensor]:
    """All rows of the train split, tokens and lengths."""
    tables = [pq.read_table(path) for path in sorted((lake.root / lake.dataset("example", "v1")).glob("train-*.parquet"))]
    return (torch.tensor([row for table in tables for row in table.column("tokens").to_pylist()]),
            torch.tensor([length for table in tables for length in table.column("length").to_pylist()]))


@pytest.mark.parametrize("name", ["qwen3", "qwen3 untied", "llama", "gpt2"])
def test_one_step_is_that_of_transformers_and_adamw(tmp_path, name):
    theirs = save_pretrained(tmp_path / "in", name)
    lake = Lake.at(tmp_path / "lake")
    manifest = publish_example(lake, train_rows=ROWS)
    config = example_config(model={"from": str(tmp_path / "in")}, layout__num_replicas=1, optimizer=ADAMW,
                            schedule={"kind": "constant", "warmup_steps": 0},
                            train={"global_batch_samples": ROWS, "steps": 1, "clip_norm": None})
    run = prepare_run(lake, config, manifest)
    run_workers(run)
    ours = load_file(next(lake.root.glob("models/*/last")) / "model.safetensors")

    tokens, lengths = rows_of(lake)
    targets = tokens[:, 1:].clone()
    targets[torch.arange(1, tokens.shape[1]) >= lengths[:, None]] = -100
    loss = functional.cross_entropy(theirs.train()(tokens[:, :-1]).logits.flatten(0, 1), targets.flatten())
    loss.backward()
    matrices, vectors = ([p for p in theirs.parameters() if (p.dim() >= 2) is many] for many in (True, False))
    torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
                      lr=LEARNING_RATE, betas=(0.9, 0.95), eps=EPSILON).step()
    records = [json.loads(line) for line in run.live(0).record(0).read_text().splitlines()]
    assert of_kind(records, "step")[0]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    moved = 0.0
    before = load_file(tmp_path / "in/model.safetensors")
    for parameter, value in theirs.state_dict().items():
        if parameter in ours:
            difference = (ours[parameter] - value).abs()
            if parameter.endswith("c_attn.bias"):  # whose part for keys has a gradient of rounding noise there, and is none here
                width = len(value) // 3
                difference[width : 2 * width] = 0
            assert difference.max() <= 1e-6, parameter
            moved = max(moved, float((ours[parameter] - before[parameter]).abs().max()))
    assert moved > 0.9 * LEARNING_RATE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    save_pretrained(folder, "qwen3", max_shard_size="10KB")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, folder):
    return trained(tmp_path_factory.mktemp("1x1"), {"from": str(folder)}, 1, 1)


@pytest.mark.parametrize("layout", [(2, 1), (1, 2), (1, 4), (2, 2)], ids=lambda layout: "{}x{}".format(*layout))
def test_no_layout_changes_what_is_learned(tmp_path, folder, alone, layout):
    records, weights = trained(tmp_path, {"from": str(folder)}, *layout, layout__micro_batch_samples=2)
    assert_same_training((records, weights), alone)


def test_weights_that_are_replaced_between_plan_and_launch_are_noticed_by_the_rank(tmp_path):
    save_pretrained(tmp_path / "in", "qwen3")
    lake = Lake.at(tmp_path / "lake")
    run = prepare_run(lake, example_config(model={"from": str(tmp_path / "in")}, layout__num_replicas=1), publish_example(lake))
    weights = load_file(tmp_path / "in/model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"][1, 1] += 1e-3
    save_file(weights, tmp_path / "in/model.safetensors")
    with pytest.raises(RankFailedError, match=r"is not what the driver looked at \(model\.layers\.2\.mlp\.up_proj\.weight\)"):
        run_workers(run)
