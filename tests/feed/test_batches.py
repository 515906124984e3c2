"""What training and evaluation get: the laws on real files with both readers, the thread, its bounds and its errors."""

import subprocess
import sys
import threading
import time
import tracemalloc
from itertools import chain, islice

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.platform import Reader
from pipelines.config.recipe import Data
from pipelines.errors import ConfigError, DataError, RankFailedError, ResourceError
from pipelines.feed.batches import EvaluationFeed, SampleOrder, Share, TrainingFeed
from pipelines.feed.checked_shards import NO_SAMPLE, ShardFiles
from pipelines.feed.lanes import LaneOrder
from pipelines.feed.read_ahead import ROW_GROUP_COPIES
from pipelines.lake.store import FolderStore
from tests.support.shard_files import END_OF_TEXT, SEQUENCE_LENGTH, length_of, publish, tokens_of

KINDS = ["arrow", "petastorm"]
PRIME_SHARDS = ([4, 4, 3], [5, 1], [7, 7, 5, 1])  # 37 rows


@pytest.fixture(scope="module")
def prime(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prime")
    return folder, publish(folder, *PRIME_SHARDS)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def feed_of(dataset, *, kind="arrow", num_lanes=4, window=2, shuffle=True, read_ahead_bytes=1000, seed=5, batch=8,
            micro=3, replica_index=0, num_replicas=1, **options):
    folder, manifest = dataset
    order = SampleOrder(Data(num_lanes=num_lanes, window_row_groups=window, shuffle=shuffle), seed, batch)
    return TrainingFeed(FolderStore(folder), manifest, Reader(kind=kind, read_ahead_bytes=read_ahead_bytes), order,
                        Share(micro, replica_index, num_replicas), **options)


def ids_of_step(step):
    return [int(i) for micro_batch in step.micro_batches for i in micro_batch.sample_ids_B]


def ids_by_step(dataset, until_step, **options):
    with feed_of(dataset, until_step=until_step, **options) as feed:
        return [ids_of_step(step) for step in feed]


def threads():
    return [thread for thread in threading.enumerate() if thread is not threading.main_thread()]


def test_every_sample_carries_the_tokens_length_and_weight_of_its_row(prime, kind):
    with feed_of(prime, kind=kind, until_step=10) as feed:
        for step in feed:
            for micro_batch in step.micro_batches:
                for i, row in enumerate(micro_batch.sample_ids_B.tolist()):
                    padding = row == NO_SAMPLE
                    expected = [END_OF_TEXT] * (SEQUENCE_LENGTH + 1) if padding else tokens_of(row)
                    assert micro_batch.fields["tokens"][i].tolist() == expected
                    assert micro_batch.fields["length"][i].item() == (0 if padding else length_of(row))
                    assert micro_batch.weights_B[i].item() == (0 if padding else 1)


def test_types_and_micro_batches(prime, kind):
    with feed_of(prime, kind=kind) as feed:
        step = next(feed)
    assert [len(micro_batch) for micro_batch in step.micro_batches] == [3, 3, 2]
    first = step.micro_batches[0]
    assert (first.fields["tokens"].dtype, first.fields["length"].dtype, first.weights_B.dtype, first.sample_ids_B.dtype) == (
        torch.int32, torch.int32, torch.float32, torch.int64)
    assert (step.step, step.epoch, step.step_in_epoch, step.samples) == (0, 0, 0, 8)


@pytest.mark.parametrize("shards", [PRIME_SHARDS, ([1],), ([3], [2]), ([1] * 13,), ([50, 1, 1],)])
def test_every_row_weighs_exactly_one_in_every_epoch(tmp_path, kind, shards):
    dataset = tmp_path, publish(tmp_path, *shards)
    rows = sum(map(sum, shards))
    for num_replicas in (1, 4):
        weights, steps = {}, [0] * num_replicas
        for replica_index in range(num_replicas):
            with feed_of(dataset, kind=kind, replica_index=replica_index, num_replicas=num_replicas) as feed:
                for step in islice(feed, 2 * feed.steps_per_epoch):
                    steps[replica_index] = step.step + 1
                    assert step.samples == sum(int(micro_batch.weights_B.sum()) for micro_batch in step.micro_batches)
                    for micro_batch in step.micro_batches:
                        ids, of_ids = micro_batch.sample_ids_B.tolist(), micro_batch.weights_B.tolist()
                        for row, weight in zip(ids, of_ids, strict=True):
                            weights[step.epoch, row] = weights.get((step.epoch, row), 0) + weight
        assert steps == [2 * feed.steps_per_epoch] * num_replicas  # a replica without rows goes on as long as the others
        assert {place: weight for place, weight in weights.items() if weight} == {
            (epoch, row): 1 for epoch in (0, 1) for row in range(rows)}


def test_both_readers_give_identical_samples_in_identical_order(prime):
    arrow, petastorm = (ids_by_step(prime, 17, kind=kind) for kind in KINDS)
    assert arrow == petastorm
    assert len(arrow) == 17


@settings(deadline=None, max_examples=40)
@given(lanes_per_replica=st.integers(1, 3), num_replicas=st.integers(1, 4), per_lane=st.integers(1, 3),
       window=st.integers(1, 5), shuffle=st.booleans(), first_step=st.integers(0, 40),
       read_ahead_bytes=st.integers(1, 3000))
def test_any_layout_and_any_resume_give_the_straight_runs_steps(
        prime, lanes_per_replica, num_replicas, per_lane, window, shuffle, first_step, read_ahead_bytes):
    num_lanes = lanes_per_replica * num_replicas
    options = {"num_lanes": num_lanes, "batch": num_lanes * per_lane, "window": window, "shuffle": shuffle}
    straight = ids_by_step(prime, first_step + 12, **options)
    parts = [ids_by_step(prime, first_step + 12, **options, first_step=first_step, replica_index=replica_index,
                         num_replicas=num_replicas, read_ahead_bytes=read_ahead_bytes)
             for replica_index in range(num_replicas)]
    assert [[*chain.from_iterable(of_step)] for of_step in zip(*parts, strict=True)] == straight[first_step:]


def test_steps_go_on_over_the_epochs(prime):
    with feed_of(prime, first_step=3, until_step=11) as feed:
        assert feed.steps_per_epoch == 5
        places = [(step.step, step.epoch, step.step_in_epoch) for step in feed]
        assert list(feed) == []
    assert places == [(3, 0, 3), (4, 0, 4), *[(5 + i, 1, i) for i in range(5)], (10, 2, 0)]


def test_a_resumed_feed_opens_only_the_shards_that_it_needs(tmp_path, kind):
    folder, manifest = tmp_path, publish(tmp_path, [8], [8], [8], [8])
    options = {"num_lanes": 1, "window": 1, "batch": 4, "shuffle": False, "kind": kind}
    straight = ids_by_step((folder, manifest), 8, **options)
    for done in (0, 1):
        (folder / f"train-{done:05d}.parquet").unlink()
    assert ids_by_step((folder, manifest), 8, first_step=4, **options) == straight[4:]


def test_without_shuffling_one_lane_reads_the_files_in_order(prime, kind):
    steps = ids_by_step(prime, 5, num_lanes=1, shuffle=False, kind=kind)
    assert [*chain.from_iterable(steps)] == [*range(37), *[NO_SAMPLE] * 3]


def test_a_steps_tensors_stay_as_they_are_when_later_steps_are_taken(prime):
    with feed_of(prime, until_step=60) as feed:
        kept = [(step, [micro_batch.fields["tokens"].clone() for micro_batch in step.micro_batches]) for step in feed]
    for step, copies in kept:
        assert all(torch.equal(micro.fields["tokens"], copy) for micro, copy in zip(step.micro_batches, copies, strict=True))


def test_the_data_wait_is_the_time_spent_in_the_feed(prime):
    with feed_of(prime) as feed:
        began = time.perf_counter()
        waits = [next(feed).data_wait_s for _ in range(20)]
        spent = time.perf_counter() - began
    assert all(wait > 0 for wait in waits)
    assert sum(waits) <= spent


@pytest.mark.parametrize("take", [0, 1, 7])
def test_closing_anywhere_leaves_no_thread(prime, kind, take):
    feed = feed_of(prime, kind=kind)
    for _ in range(take):
        next(feed)
    feed.close()
    assert threads() == []
    feed.close()


@pytest.mark.processes
def test_a_process_that_never_closes_its_feed_ends_the_thread_first(tmp_path):
    publish(tmp_path, [4] * 9).save(FolderStore(tmp_path))
    program = f"""
import atexit, threading
from pathlib import Path
from pipelines.config.platform import Reader
from pipelines.config.recipe import Data
from pipelines.feed.batches import SampleOrder, Share, TrainingFeed
from pipelines.lake.store import FolderStore
from tests.support.shard_files import manifest_in
atexit.register(lambda: print(threading.active_count()))  # the last one to run
folder = Path({str(tmp_path)!r})
feed = TrainingFeed(FolderStore(folder), manifest_in(folder), Reader(kind="arrow"),
                    SampleOrder(Data(num_lanes=1), 0, 2), Share(2))
print(threading.active_count() > 1)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.stdout, ran.returncode, ran.stderr) == ("True\n1\n", 0, "")


def test_a_thread_that_has_read_everything_asked_for_ends_by_itself(prime):
    feed = feed_of(prime, until_step=3)
    assert len(list(feed)) == 3
    feed._read_ahead._thread.join(10)
    assert threads() == []
    feed.close()


def test_waiting_for_the_training_thread_uses_no_processor_time(prime):
    with feed_of(prime) as feed:
        next(feed)
        time.sleep(0.3)  # it fills the ring meanwhile
        before = psutil.Process().cpu_times()
        time.sleep(0.5)
        after = psutil.Process().cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.1


def test_the_thread_that_decodes_may_ask_what_comes_while_the_one_that_places_rows_does(prime, monkeypatch):
    straight = ids_by_step(prime, 200, window=1)
    windows = LaneOrder.windows

    def slow(self, lanes, first_step):
        for window in windows(self, lanes, first_step):
            time.sleep(0.002)  # lets the other thread come in between
            yield window

    monkeypatch.setattr(LaneOrder, "windows", slow)
    assert ids_by_step(prime, 200, window=1) == straight


def test_an_error_in_the_thread_is_raised_where_steps_are_taken(tmp_path, kind):
    dataset = tmp_path, publish(tmp_path, [4], [4], [4])
    (tmp_path / "train-00001.parquet").unlink()
    with feed_of(dataset, kind=kind, num_lanes=1, batch=4, window=1, shuffle=False) as feed:
        for _ in range(2):
            with pytest.raises(DataError, match=r"train-00001.parquet: is missing; restore the file"):
                for _ in feed:
                    pass
    assert threads() == []


FAULTS = [(ZeroDivisionError("by 0"), RankFailedError, r"a reading thread died of ZeroDivisionError: by 0 in \w+\.py, line \d+"),
          (OverflowError("too large"), RankFailedError, "a reading thread died of OverflowError: too large"),
          (MemoryError(), ResourceError, "there is no memory to read more .*lower reader.read_ahead_bytes"),
          (pa.ArrowMemoryError("malloc of size 1 failed"), ResourceError, "no memory .*malloc of size 1 failed"),
          (SystemExit(3), RankFailedError, "a reading thread died of SystemExit: 3")]


@pytest.mark.parametrize(("error", "kind_of_error", "message"), FAULTS, ids=lambda case: type(case).__name__)
@pytest.mark.parametrize("at", ["scatter", "decode"])
def test_whatever_ends_a_thread_ends_the_feed_with_its_reason(prime, monkeypatch, at, error, kind_of_error, message):
    calls = iter(range(100))

    def fail_on_the_second(*_):
        if next(calls):
            raise error

    place = (TrainingFeed, "_put_window") if at == "scatter" else (ShardFiles, "rows_of")
    original = getattr(*place)
    monkeypatch.setattr(*place, lambda *arguments: (fail_on_the_second(), original(*arguments))[1])
    with feed_of(prime, num_lanes=1, batch=4, window=1) as feed:
        for _ in range(2):  # asked again, it says so again
            with pytest.raises(kind_of_error, match=message):
                for _ in feed:
                    pass
    if at == "decode":
        folder, manifest = prime
        with pytest.raises(kind_of_error, match=message):
            list(EvaluationFeed(FolderStore(folder), manifest, Reader(kind="arrow"), Share(4), split="train"))
    assert threads() == []


@pytest.mark.parametrize("num_replicas", [1, 4])
def test_what_waits_in_memory_is_bounded_by_windows_and_budget(tmp_path, kind, num_replicas, monkeypatch):
    monkeypatch.setattr("pipelines.feed.batches.TAKEN_BYTES", 1)  # a step at a time
    row_groups, rows, length = 64, 64, 255
    dataset = tmp_path, publish(tmp_path, *[[rows] * (row_groups // 4)] * 4, sequence_length=length)
    row_bytes, row_group_bytes, budget = (length + 1) * 4 + 12, rows * (length + 1) * 4, 2_000_000
    with feed_of(dataset, kind=kind, batch=16, num_replicas=num_replicas, read_ahead_bytes=budget) as warm:
        next(warm)  # imports and checks are none of the feed's memory
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        with feed_of(dataset, kind=kind, batch=16, num_replicas=num_replicas, read_ahead_bytes=budget) as feed:
            windows_bytes = (4 // num_replicas) * 2 * rows * row_bytes
            assert feed.buffer_bytes <= windows_bytes + budget + 2 * 16 // num_replicas * row_bytes
            for _ in range(4):
                for _ in range(25):
                    next(feed)
                    assert pa.total_allocated_bytes() - before <= ROW_GROUP_COPIES * row_group_bytes
                ours = [tracemalloc.Filter(True, "*/pipelines/feed/*"), tracemalloc.Filter(True, "*/numpy/*")]
                held = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ours).statistics("filename"))
                steps_bytes = 2 * 16 // num_replicas * row_bytes
                assert windows_bytes < held <= feed.buffer_bytes + steps_bytes + 4 * row_group_bytes
    finally:
        tracemalloc.stop()


def test_a_dataset_of_a_few_rows_takes_little_memory_whatever_the_budget(tmp_path):
    dataset = tmp_path, publish(tmp_path, [1])
    with feed_of(dataset, read_ahead_bytes=2**40) as feed:
        assert feed.buffer_bytes < 200_000


@pytest.mark.parametrize(("options", "place"), [({"batch": 6}, "train.global_batch_samples"),
                                                ({"num_replicas": 3}, "layout.num_replicas")])
def test_what_does_not_divide_is_refused_before_a_thread_starts(prime, options, place):
    with pytest.raises(ConfigError, match=place):
        feed_of(prime, **options)
    assert threads() == []


def test_a_split_without_rows_is_refused(prime):
    with pytest.raises(DataError, match="has no validation rows"):
        feed_of(prime, split="validation")


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("micro", [1, 4, 100])
def test_an_evaluation_takes_every_row_once_in_order_on_any_number_of_replicas(prime, kind, num_replicas, micro):
    folder, manifest = prime
    rows = []
    for replica_index in range(num_replicas):
        feed = EvaluationFeed(FolderStore(folder), manifest, Reader(kind=kind), Share(micro, replica_index, num_replicas),
                              split="train")
        passes = [list(feed) for _ in range(2)]
        ids = [np.concatenate([m.sample_ids_B for m in one] or [[]]).astype(int).tolist() for one in passes]
        assert ids[0] == ids[1]
        rows += ids[0]
        for micro_batch in passes[0]:
            assert 1 <= len(micro_batch) <= micro
            assert micro_batch.fields["tokens"].tolist() == [tokens_of(row) for row in micro_batch.sample_ids_B.tolist()]
            assert micro_batch.fields["length"].tolist() == [length_of(row) for row in micro_batch.sample_ids_B.tolist()]
            assert micro_batch.weights_B.tolist() == [1.0] * len(micro_batch)
        assert all(len(micro_batch) == micro for micro_batch in passes[0][:-1])
    assert rows == list(range(37))


@pytest.mark.parametrize("num_replicas", [1, 3, 40])
@pytest.mark.parametrize("limit", [1, 9, 36, 37, 1000])
def test_an_evaluation_of_the_first_rows_takes_the_same_ones_on_any_number_of_replicas(prime, limit, num_replicas):
    folder, manifest = prime
    feeds = [EvaluationFeed(FolderStore(folder), manifest, Reader(kind="arrow"), Share(4, replica_index, num_replicas),
                            split="train", rows=limit)
             for replica_index in range(num_replicas)]
    micro_batches = [list(feed) for feed in feeds]
    assert [len(feed) for feed in feeds] == [len(each) for each in micro_batches]
    assert [row for each in micro_batches for m in each for row in m.sample_ids_B.tolist()] == list(range(min(limit, 37)))


def test_an_evaluation_of_an_empty_split_is_empty(prime):
    folder, manifest = prime
    assert list(EvaluationFeed(FolderStore(folder), manifest, Reader(), Share(4), split="validation")) == []


def test_an_evaluation_says_what_is_wrong_with_a_shard(tmp_path, kind):
    manifest = publish(tmp_path, [4])
    path = tmp_path / "train-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="were published"):
        list(EvaluationFeed(FolderStore(tmp_path), manifest, Reader(kind=kind), Share(4), split="train"))
    assert threads() == []
