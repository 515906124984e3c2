"""Numbers that belong to a sample: the same in any company, on any device, and evenly spread."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.feed.draws import NUMBERS, DrawKey, draws
from pipelines.models.device_draws import device_draws

IDS = st.lists(st.integers(-1, 2**62), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(IDS, st.integers(0, 2**31), st.integers(0, 5), st.integers(1, 70), st.integers(0, 2**31 - 1), st.text(max_size=9))
def test_a_samples_numbers_do_not_depend_on_the_others_and_torch_makes_the_same(ids, epoch, turn, count, seed, place):
    key, ids_B = DrawKey.of(seed, place), np.array(ids)
    together = draws(key, epoch, ids_B, count, turn)
    assert together.shape == (len(ids), count)
    for row, sample in zip(together, ids, strict=True):
        assert (draws(key, epoch, np.array([sample]), count, turn)[0] == row).all()
    assert (device_draws(key, epoch, torch.tensor(ids), count, turn).numpy() == together).all()


def test_they_are_the_raw_output_of_philox_at_the_stated_counter():
    key = DrawKey.of(7, "second.dropout")
    words = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=[0, 5, 3, 1]).random_raw(8)
    assert (draws(key, 3, np.array([9, 5]), 32, turn=1)[1] == words.view("<u2")).all()
    assert draws(key, 3, np.array([5]), 4, turn=1)[0].tolist() == [29854, 7837, 12319, 54907]  # for ever


def test_another_seed_place_epoch_sample_or_turn_draws_otherwise_and_all_evenly():
    ids_B = np.arange(40)
    first = draws(DrawKey.of(1, "a"), 0, ids_B, 500)
    others = [draws(DrawKey.of(2, "a"), 0, ids_B, 500), draws(DrawKey.of(1, "b"), 0, ids_B, 500),
              draws(DrawKey.of(1, "a"), 1, ids_B, 500), draws(DrawKey.of(1, "a"), 0, ids_B + 1, 500),
              draws(DrawKey.of(1, "a"), 0, ids_B, 500, turn=1)]
    for other in others:
        assert (first == other).mean() < 0.001
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.03
    assert abs(first.mean() / NUMBERS - 0.5) < 0.01
    assert abs((first < NUMBERS // 4).mean() - 0.25) < 0.015
