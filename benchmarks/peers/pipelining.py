"""Peer of the layer-split benchmark: torch.distributed.pipelining under torchrun, alone or with DDP; or one bare process.

Start: ``torchrun --nproc-per-node N benchmarks/peers/pipelining.py DATASET CONFIG_JSON``, or with ``python`` (alone).
Prints the steady tokens per second of the whole job as JSON. The same model, cut, schedule, data and clipping as ours.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2]))
from pipelines.models.build import build_model
from pipelines.models.gpt.settings import GptModel


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def gradient_of(parameter: torch.Tensor) -> torch.Tensor:
    if parameter.grad is None:
        raise RuntimeError("a parameter took no part")
    return parameter.grad


def main() -> None:
    dataset, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    micro_batches, counts = settings["micro_batches"], settings["counts"]
    column = pq.read_table(sorted(dataset.glob("train-*.parquet"))).column("tokens").combine_chunks()
    rows = torch.from_numpy(column.flatten().to_numpy().reshape(len(column), -1).astype(np.int64))
    model = build_model(GptModel(**settings["model"]),
                        {"vocabulary_size": settings["vocabulary_size"], "sequence_length": rows.shape[1] - 1}, seed=1)
    segments, replica, replicas = len(counts), 0, 1
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        rank, world = dist.get_rank(), dist.get_world_size()
        segment, replica, replicas = rank % segments, rank // segments, world // segments
        pipes = [dist.new_group(list(range(r * segments, (r + 1) * segments))) for r in range(replicas)]
        columns = [dist.new_group(list(range(s, world, segments))) for s in range(segments)]
        begin = sum(counts[:segment])
        part = nn.Sequential(*list(model.layers.values())[begin : begin + counts[segment]])
        trained = list(part.parameters())
        module = DistributedDataParallel(part, process_group=columns[segment]) if replicas > 1 else part
        stage = PipelineStage(module, segment, segments, torch.device("cpu"), group=pipes[replica])
        schedule = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}[settings["schedule"]](stage, micro_batches, loss_fn=loss_of)
    else:
        trained = list(model.parameters())
    optimizer = torch.optim.AdamW([{"params": [p for p in trained if p.dim() >= 2], "weight_decay": 0.1},
                                   {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0}],
                                  lr=1e-3, betas=(0.9, 0.95), fused=True)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[replica::replicas]
    batch, seconds = settings["samples_per_replica"], []
    for step in range(settings["steps"]):
        began = time.perf_counter()
        picked = rows[order[torch.arange(step * batch, (step + 1) * batch) % len(order)]]
        inputs, targets = picked[:, :-1], picked[:, 1:]
        optimizer.zero_grad()
        if "RANK" in os.environ:
            arguments = [inputs] if segment == 0 else []
            schedule.step(*arguments, target=targets if segment == segments - 1 else None)
            squared = torch.stack([gradient_of(p).square().sum() for p in trained]).sum()
            dist.all_reduce(squared, group=pipes[replica])
            norm = squared.sqrt()
        else:
            for x, y in zip(inputs.chunk(micro_batches), targets.chunk(micro_batches), strict=True):
                (loss_of(model(x), y) / micro_batches).backward()
            norm = torch.nn.utils.get_total_norm([gradient_of(p) for p in trained])
        factor = float(torch.clamp(1.0 / (norm + 1e-6), max=1.0))
        for p in trained:
            gradient_of(p).mul_(factor)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    steady = seconds[settings["warmup"]:]
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps({"tokens_per_s": replicas * batch * (rows.shape[1] - 1) * len(steady) / sum(steady)}))
    if "RANK" in os.environ:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
