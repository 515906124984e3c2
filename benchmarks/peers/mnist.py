"""Peer of the mnist and resnet benchmarks: a plain PyTorch script, alone or under torchrun as DDP.

The model is the classic convolutional network, or with ``resnet`` in the settings ours of that section.

Start: ``python benchmarks/peers/mnist.py DATASET SETTINGS_JSON``, or with ``torchrun --nproc-per-node 2``.
Prints accuracy on the validation split, and this process's samples per second in the median of its steady steps, as JSON.

Source of the classic network and its settings: the MNIST example of PyTorch, with SGD with momentum and a cosine instead of
Adadelta and steps.
"""

import json
import os
import statistics
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

sys.path.insert(0, str(Path(__file__).parents[2]))
from pipelines.models.build import build_model
from pipelines.models.resnet.settings import ResnetModel


def network(settings: dict[str, Any]) -> nn.Module:
    if "resnet" in settings:
        sizes = {"channels": 1, "height": 28, "width": 28, "num_classes": 10}
        return build_model(ResnetModel(**settings["resnet"]), sizes, settings["seed"])
    return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
                         nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))


def split_of(dataset: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images as they are stored and labels, all in memory."""
    table = pq.read_table(sorted(dataset.glob(f"{split}-*.parquet")), columns=["image", "label"]).combine_chunks()
    labels = table.column("label").to_numpy()
    pixels = np.frombuffer(bytearray().join(table.column("image").to_pylist()), np.uint8).reshape(len(labels), 1, 28, 28)
    return torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))


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
    model = network(settings)
    forward: Any = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True) if distributed else model
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["learning_rate"], momentum=settings["momentum"])
    batch = settings["batch"] // world
    total_steps = settings["epochs"] * -(-len(images) // settings["batch"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps, settings["learning_rate"] * 0.1)
    seconds: list[float] = []
    samples: list[int] = []
    for epoch in range(settings["epochs"]):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(settings["seed"] * 1000 + epoch))[rank::world]
        for first in range(0, len(order), batch):
            if len(seconds) == settings.get("steps"):
                break
            began = time.perf_counter()
            picked = order[first : first + batch]
            inputs = (images[picked].float() / 255 - mean) / deviation
            optimizer.zero_grad()
            loss = functional.cross_entropy(forward(inputs), labels[picked])
            loss.backward()
            optimizer.step()
            schedule.step()
            loss.item()
            seconds.append(time.perf_counter() - began)
            samples.append(len(picked))
    model.eval()
    with torch.no_grad():
        right = sum(int((model((part.float() / 255 - mean) / deviation).argmax(1) == true).sum())
                    for part, true in zip(test_images.split(500), test_labels.split(500), strict=True))
    rates = [count / took for count, took in zip(samples, seconds, strict=True)][settings["warmup"]:]
    print(json.dumps({"accuracy": right / len(test_labels), "samples_per_s": statistics.median(rates)}))
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
