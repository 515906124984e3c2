"""Augmentation belongs to the sample: the same picture in any company, another one in another epoch."""


import numpy as np
import pytest
import torch

from pipelines.config.recipe import Augment
from pipelines.errors import ConfigError, DataError
from pipelines.feed.augment import augmented, pictures
from pipelines.feed.batches import Batch
from pipelines.lake.paths import Lake
from pipelines.launch.planning import plan_train
from tests.support.example_data import example_config, publish_example
from tests.support.image_data import publish_images

ALL = Augment(mirror=0.5, shift_pixels=3, least_kept=0.7, contrast=0.4, brightness=0.2, cover_pixels=4)
IDS = np.array([3, 11, 4, 90, -1])
PIXELS = np.random.default_rng(1).integers(1, 256, (5, 3, 12, 10)).astype(np.uint8)


def test_a_sample_becomes_the_same_picture_in_any_company_and_another_in_another_epoch_or_by_another_seed():
    together = pictures(PIXELS, IDS, ALL, 7, 2)
    assert (together.dtype, together.shape) == (np.uint8, PIXELS.shape)
    for i in range(5):
        assert (pictures(PIXELS[i : i + 1], IDS[i : i + 1], ALL, 7, 2)[0] == together[i]).all()
    assert (pictures(PIXELS[::-1], IDS[::-1], ALL, 7, 2)[::-1] == together).all()
    for other in (pictures(PIXELS, IDS, ALL, 7, 3), pictures(PIXELS, IDS, ALL, 8, 2)):
        assert all((one != another).any() for one, another in zip(other, together, strict=True))


def test_each_setting_does_what_it_says_and_nothing_is_done_unasked():
    ids = np.arange(200)
    pixels = np.repeat(PIXELS[:1], 200, axis=0)
    assert (pictures(pixels, ids, Augment(), 0, 0) == pixels).all()
    mirrored = pictures(pixels, ids, Augment(mirror=0.5), 0, 0)
    is_mirrored = (mirrored == pixels[..., ::-1]).all((1, 2, 3))
    assert (is_mirrored | (mirrored == pixels).all((1, 2, 3))).all() and 70 < is_mirrored.sum() < 130
    shifted = pictures(pixels, ids, Augment(shift_pixels=2), 0, 0)
    moves = {(down, right) for down in range(-2, 3) for right in range(-2, 3)
             if any((one[:, 2:-2, 2:-2] == np.roll(pixels[0], (-down, -right), (1, 2))[:, 2:-2, 2:-2]).all() for one in shifted)}
    assert len(moves) == 25
    covered = (pictures(pixels, ids, Augment(cover_pixels=4), 0, 0) == 0).all(1).sum((1, 2))
    assert covered.max() == 16 and covered.min() >= 4  # at a corner half of each side is left
    cropped = pictures(pixels, ids, Augment(least_kept=0.5), 0, 0)
    assert (cropped > 0).all() and (cropped != pixels).any((1, 2, 3)).mean() > 0.8  # hardly cropped is not at all
    lighter = pictures(pixels, ids, Augment(brightness=0.2), 0, 0).astype(int) - pixels
    assert lighter.max() <= 51 and lighter.min() >= -51 and lighter.any((1, 2, 3)).mean() > 0.9


def test_other_fields_stay_and_the_batch_that_was_read_too():
    batch = Batch({"image": torch.from_numpy(PIXELS.copy()), "label": torch.arange(5)}, torch.ones(5), torch.from_numpy(IDS))
    other = augmented(batch, "image", ALL, 7, 2)
    assert torch.equal(batch.fields["image"], torch.from_numpy(PIXELS))
    assert (other.fields["image"].numpy() == pictures(PIXELS, IDS, ALL, 7, 2)).all()
    assert other.fields["label"] is batch.fields["label"] and other.sample_ids_B is batch.sample_ids_B


def test_a_dataset_without_images_is_refused(tmp_path):
    lake = Lake.at(tmp_path)
    with pytest.raises(ConfigError, match=r"data.augment: is of images, the dataset .* has none"):
        plan_train(example_config(data__augment={"mirror": 0.5}), lake, publish_example(lake), None)


def test_a_recipe_that_leaves_the_channels_to_the_images_is_planned_and_one_that_names_others_is_refused(tmp_path):
    lake = Lake.at(tmp_path)
    manifest = publish_images(lake)
    prepare, sgd = {"kind": "images", "inputs": [{"path": "none"}]}, {"kind": "sgd"}
    given = {"model": {"kind": "cnn"}, "optimizer": sgd, "data__augment": {"mirror": 0.5}}
    assert plan_train(example_config(prepare=prepare, **given), lake, manifest, None).attempt is not None
    with pytest.raises(DataError, match=r"has channels 1, prepare.channels is 3"):
        plan_train(example_config(prepare={**prepare, "channels": 3}, **given), lake, manifest, None)
