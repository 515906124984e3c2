"""What the images of a classification look like: of each class alike, bounded however many and however large."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image

from pipelines.feed.batches import Batch
from pipelines.tasks.image_samples import (
    MOST_BARS,
    MOST_BYTES,
    MOST_ROWS,
    as_trained_shown,
    class_balance,
    rows_looked_at,
    samples_shown,
)
from pipelines.tasks.png import MOST_SIDE


def batch_of(labels: list[int], channels: int = 1, side: int = 4) -> Batch:
    """Images whose every value is the row's number."""
    pixels = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, channels, side, side)
    return Batch({"image": pixels, "label": torch.tensor(labels, dtype=torch.int32)}, torch.ones(len(labels)),
                 torch.arange(len(labels)))


def value_of(png: str) -> int:
    pixel = Image.open(io.BytesIO(base64.b64decode(png))).getpixel((0, 0))
    return pixel if isinstance(pixel, int) else pixel[0]


def test_each_class_is_shown_before_any_is_shown_again_and_classes_stand_together() -> None:
    shown = samples_shown(batch_of([0] * 100 + [2, 1, 2]), ["a", "b", "c"])
    assert [picture.caption for picture in shown.pictures] == ["a"] * 17 + ["b"] + ["c"] * 2
    assert [value_of(picture.png) for picture in shown.pictures] == [*range(17), 101, 100, 102]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_of_many_classes_and_large_images_a_bounded_part_is_shown(channels: int) -> None:
    names = [f"class {label}" for label in range(200)]
    rows = batch_of(list(range(200)), channels, side=300)
    shown = [samples_shown(rows, names), as_trained_shown(rows, lambda batch, epoch: batch, names)]
    assert [len(exhibit.pictures) for exhibit in shown] == [20, 24]
    assert {Image.open(io.BytesIO(base64.b64decode(picture.png))).size for exhibit in shown for picture in exhibit.pictures
            } == {(MOST_SIDE, MOST_SIDE)}


def test_each_image_is_followed_by_itself_as_it_is_in_the_first_epochs() -> None:
    def brighter(batch: Batch, epoch: int) -> Batch:
        return Batch({**batch.fields, "image": batch.fields["image"] + 100 + epoch}, batch.weights_B, batch.sample_ids_B)

    shown = as_trained_shown(batch_of([1, 0]), brighter, ["a", "b"])
    assert [picture.caption for picture in shown.pictures] == [
        name for of in ("b", "a") for name in (of, *(f"epoch {number}" for number in range(1, 6)))]
    assert [value_of(picture.png) for picture in shown.pictures] == [0, *range(100, 105), 1, *range(101, 106)]
    assert shown.in_a_row == 6


def test_of_many_classes_the_balance_has_both_ends_and_says_what_is_between() -> None:
    few = class_balance([3, 0, 5], ["a", "b", "c"])
    assert (few.bars, few.note) == ((("a", 3), ("b", 0), ("c", 5)), "")
    many = class_balance(range(1000, 3000, 2), [f"class {number}" for number in range(1000)])
    assert len(many.bars) == MOST_BARS
    assert many.bars[0] == ("class 999", 2998) and many.bars[-1] == ("class 0", 1000)
    assert many.note == ("The 15 largest and the 15 smallest of 1,000 classes; 970 between them are not shown, of 1,030 to 2,968 "
                         "images.")


def test_fewer_large_images_are_looked_at_than_small_ones_and_always_one() -> None:
    assert rows_looked_at(784) == MOST_ROWS
    assert rows_looked_at(3 * 1024**2) == MOST_BYTES // (3 * 1024**2)
    assert rows_looked_at(3 * 2**30) == 1
