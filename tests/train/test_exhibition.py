"""What the model shows comes after the end of the run and can do nothing to it; where it is missing it says why."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from pipelines.config.platform import Layout
from pipelines.feed.rows_by_id import first_rows, some_rows
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail, RecordWriter
from pipelines.launch.local import prepare_run
from pipelines.train.exhibition import too_large, write_exhibits
from tests.support.example_data import example_config, publish_example
from tests.support.image_data import PATTERN_CLASSES, publish_images
from tests.support.rank_processes import run_workers

GIB = 2**30


@pytest.mark.parametrize(("shorter", "reason"), [
    ("refuse", "RuntimeError: shape '[-1, 16]' is invalid for input of size 1"),
    ("die", "was killed by SIGKILL (often: out of memory)"),
    ("hang", "was not done after 4 s")])
@pytest.mark.processes
def test_a_model_that_cannot_write_ends_its_run_well_and_says_why_it_shows_nothing(tmp_path, shorter, reason):
    lake = Lake.at(tmp_path)
    config = example_config(model={"factory": "tests.support.own_models:fixed_length", "shorter": shorter},
                            layout__num_replicas=1, task__sample_tokens=8,
                            launch__stall_timeout_s=8 if shorter == "hang" else 600)
    run = prepare_run(lake, config, publish_example(lake))
    run_workers(run)
    end, exhibits = RecordTail(run.live(0).record(0)).new_records()[-2:]
    assert (end["kind"], end["status"], end["step"]) == ("end", "completed", 10)
    assert (exhibits["kind"], exhibits["step"], exhibits["shown"]) == ("exhibits", 10, [])
    assert reason in exhibits["reason"]


def test_a_split_model_that_is_too_large_for_one_rank_is_not_loaded_whole():
    split, whole = Layout(num_replicas=1, num_segments=4), Layout(num_replicas=4)
    assert too_large(split, weights_bytes=8 * GIB, rank_bytes=4 * GIB) == (
        "the whole model needs 8.39 GiB, a rank of this split model is planned with 4.00 GiB")
    assert too_large(split, weights_bytes=1 * GIB, rank_bytes=4 * GIB) is None
    assert too_large(whole, weights_bytes=8 * GIB, rank_bytes=4 * GIB) is None  # each rank held it, with its gradients


@pytest.mark.parametrize(("num_segments", "augment"), [(1, {"mirror": 1.0}), (2, None)])
@pytest.mark.processes
def test_images_show_what_is_learned_from_and_what_the_model_says_of_others(tmp_path, num_segments, augment):
    lake = Lake.at(tmp_path)
    config = example_config(model={"kind": "cnn", "first_channels": 4, "second_channels": 4, "dense_width": 8},
                            layout__num_replicas=1, layout__num_segments=num_segments, layout__micro_batch_samples=2,
                            data__augment=augment)
    run = prepare_run(lake, config, publish_images(lake, validation_rows=9))
    run_workers(run)
    exhibits = RecordTail(run.live(0).record(0)).new_records()[-1]
    assert (exhibits["kind"], exhibits["reason"]) == ("exhibits", None)
    balance, samples, *changed = exhibits["data"]
    assert [name for name, _ in balance["bars"]] == list(PATTERN_CLASSES)
    assert len(samples["pictures"]) == 20 and not any(picture["marked"] for picture in samples["pictures"])
    if augment is None:
        assert changed == []
    else:
        left = next(at for at, each in enumerate(changed[0]["pictures"]) if each["caption"] == "left")
        as_it_is, *mirrored = [pixels_of(each["png"]) for each in changed[0]["pictures"][left : left + 6]]
        assert as_it_is.mean(0)[:6].mean() > as_it_is.mean(0)[6:].mean()  # left is the bright side
        assert all((each == as_it_is[:, ::-1]).all() for each in mirrored)
    (shown,) = exhibits["shown"]
    assert shown["kind"] == "pictures" and len(shown["pictures"]) == 9  # all that there are
    for picture in shown["pictures"]:
        assert picture["png"].startswith("iVBORw0KGgo") and any(name in picture["caption"] for name in PATTERN_CLASSES)
        assert picture["marked"] == ("said" in picture["caption"])
    (lake.root / lake.model(run.run_id, "best") / "model.safetensors").write_bytes(b"x" * 40)
    with RecordWriter(run.live(0).record(0), 0, 0) as records:
        write_exhibits(run, 0, 10, {"train_rows": 256, "validation_rows": 9}, records)
    again = RecordTail(run.live(0).record(0)).new_records()[-1]
    assert again["data"] == exhibits["data"] and again["shown"] == []  # what the data looks like needs no model
    assert "is not an exported model" in again["reason"]


def pixels_of(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_rows_to_show_are_evenly_apart_and_none_where_none_are_wanted(tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_images(lake, validation_rows=29)
    dataset = lake.store.below(lake.dataset(manifest.name, manifest.version))
    assert some_rows(dataset, manifest, "validation", 10).sample_ids_B.tolist() == [0, 2, 5, 8, 11, 14, 17, 20, 23, 26]
    assert len(some_rows(dataset, manifest, "validation", 100)) == 29
    assert some_rows(dataset, manifest, "validation", 0) is None


def test_the_first_rows_are_read_from_no_further_shard(tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_images(lake, validation_rows=29, rows_per_shard=11)
    dataset = lake.store.below(lake.dataset(manifest.name, manifest.version))
    for shard in manifest.shards("validation")[1:]:
        (lake.root / lake.dataset(manifest.name, manifest.version) / shard.path).unlink()
    assert first_rows(dataset, manifest, "validation", 11).sample_ids_B.tolist() == list(range(11))
    assert first_rows(dataset, manifest, "validation", 0) is None
