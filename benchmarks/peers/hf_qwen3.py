"""Peer of the qwen3 benchmark: transformers' ``Qwen3ForCausalLM`` in a plain DDP loop, with fused AdamW.

Start: ``torchrun --nproc-per-node 2 benchmarks/peers/hf_qwen3.py DATASET SETTINGS_JSON``.
Prints as JSON the tokens of a step of this process's share, and the seconds of each steady step.
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
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import Qwen3Config, Qwen3ForCausalLM


def main() -> None:
    dataset, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo")
    column = pq.read_table(sorted(dataset.glob("train-*.parquet"))).column("tokens").combine_chunks()
    rows = torch.from_numpy(column.flatten().to_numpy().reshape(len(column), -1).astype(np.int64))
    given = settings["model"]
    torch.manual_seed(1)
    model = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=settings["vocabulary_size"], hidden_size=given["width"], intermediate_size=given["feed_width"],
        num_hidden_layers=given["num_layers"], num_attention_heads=given["num_heads"], head_dim=given["head_width"],
        num_key_value_heads=given.get("num_key_value_heads", given["num_heads"]), tie_word_embeddings=True,
        max_position_embeddings=settings["sequence_length"], use_cache=False))
    model.train()
    forward = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True)
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
            logits = forward(input_ids=picked[:, :-1]).logits
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), picked[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"tokens": batch * (rows.shape[1] - 1), "seconds": seconds[settings["warmup"]:]}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
