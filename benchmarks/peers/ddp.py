"""Peer of the benchmarks training and qwen3: data, batch and precision of ours in a plain DDP loop, or alone on each core.

The model is ours, or with ``qwen3`` in the settings transformers' own.

Start: ``torchrun --nproc-per-node 2 benchmarks/peers/ddp.py DATASET CONFIG_JSON`` (DDP), or with ``python`` (alone).
Prints as JSON the tokens of a step of this process's share, and the seconds of each steady step.
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
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2]))
from pipelines.models.build import build_model
from pipelines.models.gpt.settings import GptModel
from pipelines.train.widened_products import has_bfloat16_products, widen_products


def bf16_on_the_wire(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
    """torch's bf16 hook: by its own name DDP takes it with NCCL only, though gloo sums bfloat16. DDP demands these types."""
    return default_hooks.bf16_compress_hook(group, bucket)


class Logits(nn.Module):
    """transformers' Qwen3, which takes tokens and gives logits as our models do."""

    def __init__(self, given: dict[str, Any], vocabulary_size: int, sequence_length: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.model = Qwen3ForCausalLM(Qwen3Config(
            vocab_size=vocabulary_size, hidden_size=given["width"], intermediate_size=given["feed_width"],
            num_hidden_layers=given["num_layers"], num_attention_heads=given["num_heads"], head_dim=given["head_width"],
            num_key_value_heads=given.get("num_key_value_heads", given["num_heads"]), tie_word_embeddings=True,
            max_position_embeddings=sequence_length, use_cache=False))

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        logits_BTV: torch.Tensor = self.model(input_ids=tokens_BT).logits
        return logits_BTV


def network(settings: dict[str, Any], sequence_length: int) -> nn.Module:
    vocabulary_size = settings["vocabulary_size"]
    if "qwen3" in settings:
        return Logits(settings["qwen3"], vocabulary_size, sequence_length)
    return build_model(GptModel(**settings["model"]), {"vocabulary_size": vocabulary_size, "sequence_length": sequence_length},
                       seed=1)


def main() -> None:
    dataset, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    if settings.get("widened") and settings["precision"] == "bf16" and not has_bfloat16_products():
        widen_products()
    distributed = "RANK" in os.environ
    rank, world = (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if distributed else (0, 1)
    if distributed:
        dist.init_process_group("gloo")
    column = pq.read_table(sorted(dataset.glob("train-*.parquet"))).column("tokens").combine_chunks()
    rows = torch.from_numpy(column.flatten().to_numpy().reshape(len(column), -1).astype(np.int64))
    model = network(settings, rows.shape[1] - 1)
    forward: Any = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True) if distributed else model
    if settings.get("hook"):
        forward.register_comm_hook(None, bf16_on_the_wire)
    if settings.get("compiled"):
        forward = torch.compile(forward)
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                                  lr=1e-3, betas=(0.9, 0.95), fused=True)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[rank::world]
    batch, seconds = settings["batch_per_rank"], []
    for step in range(settings["steps"]):
        began = time.perf_counter()
        picked = rows[order[torch.arange(step * batch, (step + 1) * batch) % len(order)]]
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings["precision"] == "bf16"):
            logits = forward(picked[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), picked[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"tokens": batch * (rows.shape[1] - 1), "seconds": seconds[settings["warmup"]:]}))
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
