"""The bigram baseline is what one gets by hand, and its cost does not grow with the dataset."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore
from pipelines.prepare.text import bigram
from pipelines.prepare.text.bigram import bigram_baseline, bigram_loss, sampled_pairs
from tests.support.example_data import publish_example

V = 32  # of the example


def shards_of(lake: Lake, **sizes: int) -> dict[str, list[Path]]:
    manifest = publish_example(lake, **sizes)
    return {split: [lake.root / lake.dataset("example", "v1") / shard.path for shard in shards]
            for split, shards in manifest.splits.items()}


def test_the_loss_is_the_one_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigram, "WEIGHTS", (2.0,))
    # asked twice: a pair seen 3 times of 4; once: a pair never seen, whose second token is a tenth of all
    loss = bigram_loss(np.array([2, 1]), np.array([3, 0]), np.array([4, 4]), np.array([0.25, 0.1]))
    assert loss == pytest.approx(-(2 * math.log(3.5 / 6) + math.log(0.2 / 6)) / 3)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=20), st.lists(st.integers(1, 50), min_size=20, max_size=20))
def test_what_may_follow_a_token_sums_to_one(seen: list[int], frequency: list[int]) -> None:
    unigram_V = np.array(frequency[:len(seen)]) / sum(frequency[:len(seen)])
    for weight in bigram.WEIGHTS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bigram, "WEIGHTS", (weight,))
            losses = [bigram_loss(np.array([1]), np.array([count]), np.array([sum(seen)]), unigram_V[b:b + 1])
                      for b, count in enumerate(seen)]
        assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1.0)


def test_every_pair_of_a_small_dataset_is_counted_and_few_of_a_large_one(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = shards_of(Lake.at(tmp_path), train_rows=600, validation_rows=50, rows_per_shard=100, rows_per_row_group=10)
    shards = {split: [str(path) for path in paths] for split, paths in shards.items()}
    files = FolderStore(Path("/"))
    before, token = (np.concatenate(side) for side in zip(*sampled_pairs(files, shards["train"], 10**9, 16), strict=True))
    assert 600 * 14 < len(token) < 600 * 16  # every token of a row but its first, and none of the filling
    assert ((before + 1) % (V - 1) == token).all()  # these rows count upwards
    tokens_V = np.bincount(token, minlength=V)
    whole = bigram_baseline(files, shards["train"], shards["validation"], tokens_V, 16)
    assert whole.train_tokens == len(token) and whole.loss < 0.05
    monkeypatch.setattr(bigram, "SAMPLE_TOKENS", {"train": 800, "validation": 160})
    few = bigram_baseline(files, shards["train"], shards["validation"], tokens_V, 16)
    assert 400 < few.train_tokens <= 800 and 80 < few.validation_tokens <= 160
    assert few == bigram_baseline(files, shards["train"], shards["validation"], tokens_V, 16)


def test_pairs_seen_as_often_as_by_chance_are_no_gain() -> None:
    noise = bigram_loss(np.ones(1000), np.full(1000, 4.0), np.full(1000, 128.0), np.full(1000, 1 / V))
    assert noise == pytest.approx(math.log(V), rel=1e-6)
