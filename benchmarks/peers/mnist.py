"""Peer of the mnist benchmark: the classic convolutional network in a plain PyTorch script, alone or under torchrun as DDP.

Start: ``python benchmarks/peers/mnist.py DATASET SETTINGS_JSON``, or with ``torchrun --nproc-per-node 2``.
Prints accuracy on the validation split, and this process's steady samples per second, as JSON.

Source of the model and its settings: the MNIST example of PyTorch; the optimizer is SGD with momentum instead of Adadelta.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
                         nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))


def split_of(dataset: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images as they are stored and labels, all in memory."""
    table = pq.read_table(sorted(dataset.glob(f"{split}-*.parquet")), columns=["image", "label"]).combine_chunks()
    labels = table.column("label").to_numpy()
    pixels = table.column("image").combine_chunks().flatten().to_numpy().reshape(len(labels), 1, 28, 28)
    return torch.from_numpy(np.array(pixels)), torch.from_numpy(labels.astype(np.int64))


def main() -> None:
    dataset, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    torch.manual_seed(settings["seed"])
    distributed = "RANK" in os.environ
    rank, world = (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if distributed else (0, 1)
    if distributed:
        dist.init_process_group("gloo")
    (images, labels), (test_images, test_labels) = (split_of(dataset, split) for split in ("train", "validation"))
    mean, deviation = settings["mean"], settings["deviation"]
    model = network()
    forward: Any = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True) if distributed else model
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["learning_rate"], momentum=settings["momentum"])
    batch, seconds, samples = settings["batch"] // world, [], []
    for epoch in range(settings["epochs"]):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(settings["seed"] * 1000 + epoch))[rank::world]
        for first in range(0, len(order), batch):
            began = time.perf_counter()
            picked = order[first : first + batch]
            inputs = (images[picked].float() / 255 - mean) / deviation
            optimizer.zero_grad()
            loss = functional.cross_entropy(forward(inputs), labels[picked])
            loss.backward()
            optimizer.step()
            loss.item()
            seconds.append(time.perf_counter() - began)
            samples.append(len(picked))
    model.eval()
    with torch.no_grad():
        right = sum(int((model((part.float() / 255 - mean) / deviation).argmax(1) == true).sum())
                    for part, true in zip(test_images.split(500), test_labels.split(500), strict=True))
    steady = slice(settings["warmup"], None)
    print(json.dumps({"accuracy": right / len(test_labels), "samples_per_s": sum(samples[steady]) / sum(seconds[steady])}))
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
