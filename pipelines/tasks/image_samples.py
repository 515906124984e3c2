"""What the images of a classification look like: some of each class, how many each class has, how training changes them.

Runs on: ranks.
Takes:   rows of the training split, the names of the classes, how many training rows each has.
Gives:   ``class_balance``, ``samples_shown``, ``as_trained_shown``; ``rows_looked_at``, of which these choose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipelines.feed.batches import Batch
from pipelines.lake.exhibits import BarsExhibit, Picture, PicturesExhibit
from pipelines.tasks.png import png_base64
from pipelines.tasks.task import AsTrained

MOST_ROWS, MOST_BYTES = 256, 64 * 1024**2  # that are looked at
MOST_SAMPLES = 20
MOST_CHANGED, SHOWN_EPOCHS = 4, 5
MOST_BARS = 30


def rows_looked_at(bytes_per_row: int) -> int:
    return max(1, min(MOST_ROWS, MOST_BYTES // bytes_per_row))


def class_balance(class_counts: Sequence[int], classes: Sequence[str]) -> BarsExhibit:
    """Of many classes, the largest and the smallest."""
    bars = tuple(zip(classes, class_counts, strict=True))
    if len(bars) <= MOST_BARS:
        return BarsExhibit("Training images of each class", bars)
    by_size = sorted(bars, key=lambda bar: -bar[1])
    half = MOST_BARS // 2
    largest, between, smallest = by_size[:half], by_size[half:-half], by_size[-half:]
    return BarsExhibit("Training images of each class", (*largest, *smallest),
                       f"The {half} largest and the {half} smallest of {len(bars):,} classes; {len(between):,} between them are "
                       f"not shown, of {between[-1][1]:,} to {between[0][1]:,} images.")


def samples_shown(rows: Batch, classes: Sequence[str]) -> PicturesExhibit:
    """By class."""
    labels_B = rows.fields["label"].tolist()
    chosen = sorted(_of_each_class(labels_B, MOST_SAMPLES), key=lambda row: (labels_B[row], row))
    return PicturesExhibit("Some images that it learns from", tuple(
        Picture(png_base64(rows.fields["image"][row]), classes[labels_B[row]]) for row in chosen))


def as_trained_shown(rows: Batch, as_trained: AsTrained, classes: Sequence[str]) -> PicturesExhibit:
    """Each as it is, and then as it is in the first epochs."""
    originals = rows[_of_each_class(rows.fields["label"].tolist(), MOST_CHANGED)]
    epochs = [as_trained(originals, epoch).fields["image"] for epoch in range(SHOWN_EPOCHS)]
    pictures = []
    for row, label in enumerate(originals.fields["label"].tolist()):
        pictures.append(Picture(png_base64(originals.fields["image"][row]), classes[label]))
        pictures += [Picture(png_base64(images[row]), f"epoch {epoch}") for epoch, images in enumerate(epochs, 1)]
    return PicturesExhibit("As data.augment changes them", tuple(pictures), in_a_row=1 + SHOWN_EPOCHS)


def _of_each_class(labels: Sequence[int], most: int) -> list[int]:
    """The places of the first of each class, then of the second of each, and so on."""
    seen: Counter[int] = Counter()
    turns = []
    for place, label in enumerate(labels):
        turns.append((seen[label], place))
        seen[label] += 1
    return [place for _, place in sorted(turns)[:most]]
