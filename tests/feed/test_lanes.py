"""The order of samples: the row law, the resume law and independence of the layout, as arithmetic."""

import math
from itertools import takewhile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.feed.lanes import LaneOrder, even_range, lanes_of_replica, random_order, steps_per_epoch


def order_of(row_groups, num_lanes=4, per_lane=2, window=2, shuffle=True, seed=7):
    return LaneOrder(row_groups, num_lanes=num_lanes, window_row_groups=window, shuffle=shuffle,
                     global_batch_samples=num_lanes * per_lane, seed=seed)


ONE_ROW = order_of([1], num_lanes=12)
PRIME = order_of([5, 5, 5, 5, 5, 5, 5, 2])
FEWER_ROW_GROUPS_THAN_LANES = order_of([7, 4], num_lanes=8)
UNEVEN = order_of([100, 1, 1, 1, 30, 1], num_lanes=3, window=1)
# The hard cases are among the examples of every property.
ORDERS = st.sampled_from([ONE_ROW, PRIME, FEWER_ROW_GROUPS_THAN_LANES, UNEVEN]) | st.builds(
    order_of, st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), num_lanes=st.integers(1, 12),
    per_lane=st.integers(1, 5), window=st.integers(1, 4), shuffle=st.booleans(), seed=st.integers(0, 2**31 - 1))


def windows_before(order, lanes, first_step, until_step):
    end = until_step * order.samples_per_lane
    return takewhile(lambda window: window.first_ordinal < end, order.windows(lanes, first_step))


def sample_ids(order, lanes, first_step, until_step):
    """{(lane, ordinal): sample id} of these steps, from the windows alone; one place is never given twice."""
    first_ids = np.cumsum(order._rows_G) - order._rows_G
    placed = {}
    for window in windows_before(order, lanes, first_step, until_step):
        rows = np.concatenate([first_ids[group] + np.arange(first, first + count) for group, first, count
                               in zip(window.row_groups_P, window.first_rows_P, window.rows_P, strict=True)])
        for ordinal, row in zip(order.ordinals(window), rows, strict=True):
            if first_step <= ordinal // order.samples_per_lane < until_step:
                assert (window.lane, ordinal) not in placed
                placed[window.lane, int(ordinal)] = int(row)
    return placed


@settings(deadline=None)
@given(order=ORDERS)
def test_every_row_is_read_exactly_once_in_every_epoch(order):
    steps = order.steps_per_epoch
    for epoch in range(3):
        placed = sample_ids(order, range(order.num_lanes), epoch * steps, (epoch + 1) * steps)
        assert sorted(placed.values()) == list(range(order.rows))


@settings(deadline=None)
@given(order=ORDERS)
def test_only_the_end_of_an_epoch_is_padded(order):
    per_lane, steps = order.samples_per_lane, order.steps_per_epoch
    placed = sample_ids(order, range(order.num_lanes), 0, steps)
    for lane in range(order.num_lanes):
        ordinals = sorted(ordinal for of_lane, ordinal in placed if of_lane == lane)
        assert ordinals == list(range(len(even_range(order.rows, lane, order.num_lanes))))
        assert len(ordinals) <= steps * per_lane
    assert max(ordinal for _, ordinal in placed) // per_lane == steps - 1


@settings(deadline=None)
@given(order=ORDERS, data=st.data())
def test_the_samples_of_a_step_do_not_depend_on_the_number_of_replicas(order, data):
    divisors = [n for n in range(1, order.num_lanes + 1) if order.num_lanes % n == 0]
    num_replicas = data.draw(st.sampled_from(divisors))
    until = 2 * order.steps_per_epoch
    joined = {}
    for replica_index in range(num_replicas):
        joined |= sample_ids(order, lanes_of_replica(order.num_lanes, replica_index, num_replicas), 0, until)
    assert joined == sample_ids(order, range(order.num_lanes), 0, until)


@settings(deadline=None)
@given(order=ORDERS, data=st.data())
def test_resuming_at_any_step_gives_the_straight_run(order, data):
    until = 2 * order.steps_per_epoch
    first_step = data.draw(st.integers(0, until))
    straight = sample_ids(order, range(order.num_lanes), 0, until)
    resumed = sample_ids(order, range(order.num_lanes), first_step, until)
    done = first_step * order.samples_per_lane
    assert resumed == {place: row for place, row in straight.items() if place[1] >= done}


@settings(deadline=None)
@given(order=ORDERS, data=st.data())
def test_resuming_reads_no_window_that_is_done(order, data):
    first_step = data.draw(st.integers(0, 2 * order.steps_per_epoch))
    for window in windows_before(order, range(order.num_lanes), first_step, first_step + order.steps_per_epoch):
        assert window.first_ordinal + window.rows > first_step * order.samples_per_lane


@settings(deadline=None)
@given(order=ORDERS)
def test_a_window_is_bounded(order):
    for window in windows_before(order, range(order.num_lanes), 0, 2 * order.steps_per_epoch):
        steps = order.ordinals(window) // order.samples_per_lane
        assert 1 <= window.rows <= order.max_window_rows
        assert steps.max() - steps.min() + 1 <= order.max_window_steps
        assert len(window.row_groups_P) <= order._window_row_groups
        assert sorted(order.ordinals(window)) == list(range(window.first_ordinal, window.first_ordinal + window.rows))


@settings(deadline=None)
@given(order=ORDERS)
def test_when_a_window_comes_all_steps_before_it_are_complete(order):
    until = 2 * order.steps_per_epoch
    expected = sample_ids(order, range(order.num_lanes), 0, until)
    done = set()
    for window in windows_before(order, range(order.num_lanes), 0, until):
        step = window.first_ordinal // order.samples_per_lane
        assert {place for place in expected if place[1] // order.samples_per_lane < step} <= done
        done |= {(window.lane, int(ordinal)) for ordinal in order.ordinals(window)}


def test_lanes_differ_by_one_row_at_most():
    for rows in (1, 37, 1000):
        lengths = [len(even_range(rows, lane, 16)) for lane in range(16)]
        assert sum(lengths) == rows
        assert max(lengths) - min(lengths) <= 1


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 9))
def test_an_epoch_has_the_steps_that_its_longest_lane_needs(rows, num_lanes, per_lane):
    longest = max(len(even_range(rows, lane, num_lanes)) for lane in range(num_lanes))
    assert steps_per_epoch(rows, num_lanes, num_lanes * per_lane) == math.ceil(longest / per_lane)


def test_without_shuffling_a_lane_is_in_file_order():
    placed = sample_ids(order_of([5, 3, 4], num_lanes=2, shuffle=False), range(2), 0, 3)
    assert [placed[0, ordinal] for ordinal in range(6)] == [0, 1, 2, 3, 4, 5]
    assert [placed[1, ordinal] for ordinal in range(6)] == [6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("row_groups", [[1] * 100, [100]], ids=["of the row groups", "of the rows in a window"])
def test_epochs_and_seeds_have_orders_of_their_own(row_groups):
    orders = [order_of(row_groups, num_lanes=1, window=1, seed=seed) for seed in (7, 8)]
    steps = orders[0].steps_per_epoch

    def epoch(order, number):
        return [row for _, row in sorted(sample_ids(order, range(1), number * steps, (number + 1) * steps).items())]

    assert len({tuple(epoch(order, number)) for order in orders for number in range(3)}) == 6


def test_lanes_and_windows_have_orders_of_their_own():
    order = order_of([50] * 4, num_lanes=2, window=1)
    windows = windows_before(order, range(2), 0, order.steps_per_epoch)
    assert len({tuple(order.ordinals(window) - window.first_ordinal) for window in windows}) == 4


def test_a_seed_gives_the_same_order_on_every_platform_and_version():
    assert random_order(10, 1, 1337, 0).tolist() == [8, 6, 2, 5, 7, 0, 9, 4, 1, 3]


def test_a_lane_without_rows_has_no_windows():
    windows = list(windows_before(ONE_ROW, range(12), 0, 5))
    assert [window.epoch for window in windows] == [0, 1, 2, 3, 4]
    assert {window.lane for window in windows} == {11}


@pytest.mark.parametrize(("call", "place"), [
    (lambda: steps_per_epoch(10, 4, 6), "train.global_batch_samples"),
    (lambda: lanes_of_replica(16, 0, 3), "layout.num_replicas"),
])
def test_what_does_not_divide_is_refused(call, place):
    with pytest.raises(ConfigError, match=place):
        call()
