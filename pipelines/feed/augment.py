"""Pictures a little different in every epoch: shifted, cropped, mirrored, in another light, partly covered.

Runs on: ranks, between feed and task.
Takes:   batches with an image of uint8 ``[B, C, H, W]``; recipe section ``data.augment``.
Gives:   ``augmented``: the same batch, other pixels.

What happens to a picture is drawn from (seed, epoch, sample id) by ``draws.py``: on any layout it is the same. Every one takes
``_DRAWS`` numbers, whatever is asked for, so that one setting does not change what another draws. What a shift uncovers, and
what is covered, is 0.

Source: Krizhevsky et al. 2012 (shift, mirror, crop); DeVries & Taylor 2017 (cutout).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.config.recipe import Augment
from pipelines.feed.batches import Batch
from pipelines.feed.draws import NUMBERS, DrawKey, draws
from pipelines.lake.image_facts import PIXEL_RANGE

_DRAWS = 10


def augmented(batch: Batch, images: str, settings: Augment, seed: int, epoch: int) -> Batch:
    """``images``: the name of the field."""
    pixels_BCHW = pictures(batch.fields[images].numpy(), batch.sample_ids_B.numpy(), settings, seed, epoch)
    return replace(batch, fields={**batch.fields, images: torch.from_numpy(pixels_BCHW)})


def pictures(pixels_BCHW: NDArray[np.uint8], sample_ids_B: NDArray[np.int64], settings: Augment, seed: int, epoch: int
             ) -> NDArray[np.uint8]:
    drawn = draws(DrawKey.of(seed, "augment"), epoch, sample_ids_B, _DRAWS) / NUMBERS
    unit = dict(zip(("mirror", "down", "right", "size", "top", "left", "contrast", "brightness", "row", "column"),
                    drawn.T[:, :, None], strict=True))  # [B, 1] each, from 0 to below 1
    _, _, height, width = pixels_BCHW.shape
    rows_BH = _taken(height, unit["size"], unit["top"], unit["down"], settings)
    columns_BW = _taken(width, unit["size"], unit["left"], unit["right"], settings)
    columns_BW = np.where(unit["mirror"] < settings.mirror, columns_BW[:, ::-1], columns_BW)
    uncovered_BHW = _outside(rows_BH, height)[:, :, None] | _outside(columns_BW, width)[:, None, :]
    if settings.cover_pixels:
        uncovered_BHW |= (_near(height, unit["row"], settings.cover_pixels)[:, :, None]
                          & _near(width, unit["column"], settings.cover_pixels)[:, None, :])
    at = (np.arange(len(pixels_BCHW))[:, None, None], slice(None), rows_BH.clip(0, height - 1)[:, :, None],
          columns_BW.clip(0, width - 1)[:, None, :])
    moved_BCHW = np.moveaxis(pixels_BCHW[at], 3, 1)
    if settings.contrast or settings.brightness:
        moved_BCHW = _in_another_light(moved_BCHW, unit, settings)
    return np.where(uncovered_BHW[:, None], np.uint8(0), moved_BCHW)


def _taken(size: int, zoom_B1: NDArray, begin_B1: NDArray, shift_B1: NDArray, settings: Augment) -> NDArray[np.int64]:
    """Which of the old places each new one takes, [B, size]; outside of 0 .. size - 1 where there is none."""
    kept_B1 = 1.0 - zoom_B1 * (1.0 - settings.least_kept)
    first_B1 = begin_B1 * (1.0 - kept_B1) * size
    within_BN = np.floor(first_B1 + (np.arange(size) + 0.5) * kept_B1).astype(np.int64)
    return within_BN + np.floor(shift_B1 * (2 * settings.shift_pixels + 1)).astype(np.int64) - settings.shift_pixels


def _outside(places_BN: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    return (places_BN < 0) | (places_BN >= size)


def _near(size: int, centre_B1: NDArray, cover: int) -> NDArray[np.bool_]:
    first_B1 = np.floor(centre_B1 * size).astype(np.int64) - cover // 2
    return (np.arange(size) >= first_B1) & (np.arange(size) < first_B1 + cover)


def _in_another_light(pixels_BCHW: NDArray[np.uint8], unit: dict[str, NDArray], settings: Augment) -> NDArray[np.uint8]:
    stretch_B, lift_B = (1.0 + settings.contrast * (2 * unit["contrast"] - 1.0),
                         PIXEL_RANGE * settings.brightness * (2 * unit["brightness"] - 1.0))
    mean_B = pixels_BCHW.reshape(len(pixels_BCHW), -1).mean(1, keepdims=True)
    factor, offset = (value.astype(np.float32)[:, :, None, None] for value in (stretch_B, lift_B + mean_B * (1.0 - stretch_B)))
    return (pixels_BCHW * factor + offset).round().clip(0, PIXEL_RANGE).astype(np.uint8)
