"""Peer of the image preparation benchmark: Hugging Face datasets from a folder of images to Parquet of pixels, 2 processes.

Start: ``python hf_images.py IMAGE_FOLDER OUT_FOLDER [--warm]`` in the peers' environment.
Prints seconds and images as JSON; with --warm it has prepared the same folder before.
The steps are those of the documentation: load_dataset("imagefolder"), map(decode), to_parquet.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")

import datasets
import numpy as np


def decode(batch: dict[str, list]) -> dict[str, list]:
    return {"image": [np.asarray(image.convert("RGB")).transpose(2, 0, 1).ravel() for image in batch["image"]]}


def prepare(folder: str, out: Path) -> int:
    """Writes rows of pixels, channel after channel, and labels; returns how many."""
    images = datasets.load_dataset("imagefolder", data_dir=folder, split="train", cache_dir=str(out / "cache"))
    features = datasets.Features({"image": datasets.Sequence(datasets.Value("uint8")), "label": images.features["label"]})
    pixels = images.map(decode, batched=True, num_proc=2, features=features)
    pixels.to_parquet(str(out / "train.parquet"))
    return len(pixels)


def main() -> None:
    out = Path(sys.argv[2])
    if "--warm" in sys.argv:
        prepare(sys.argv[1], out / "warm")
    began = time.perf_counter()
    images = prepare(sys.argv[1], out / "measured")
    print(json.dumps({"seconds": time.perf_counter() - began, "images": images}))


if __name__ == "__main__":
    main()
