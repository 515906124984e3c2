"""Peer of the whole benchmark: one script from text to a trained model with datasets, TorchDistributor and DDP.

Start: ``python whole.py FILE_LIST SETTINGS_JSON OUT_FOLDER`` in the peers' environment.
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import hf_prepare
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession
from tokenizers import ByteLevelBPETokenizer


def train(dataset: str, settings: dict) -> float:
    """One rank of DDP; returns the last loss."""
    import numpy as np
    import pyarrow.parquet as pq
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn import functional
    from torch.nn.parallel import DistributedDataParallel

    class Block(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, t, d = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
            return x + self.feed(self.norm2(x))

    class Gpt(nn.Module):
        def __init__(self, vocabulary: int, length: int, layers: int, heads: int, width: int) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
            self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
            self.head.weight = self.token.weight
            nn.init.normal_(self.token.weight, 0.0, 0.02)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.blocks(self.token(ids) + self.position.weight[: ids.shape[1]])))

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    column = pq.read_table(dataset, columns=["tokens"]).column("tokens").combine_chunks()
    rows = torch.from_numpy(column.flatten().to_numpy().reshape(len(column), -1).astype(np.int64))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[rank::world]
    model = DistributedDataParallel(Gpt(settings["vocabulary_size"], rows.shape[1] - 1, settings["num_layers"],
                                        settings["num_heads"], settings["width"]), gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    batch = settings["global_batch_samples"] // world
    for step in range(settings["steps"]):
        picked = rows[order[torch.arange(step * batch, (step + 1) * batch) % len(order)]]
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(picked[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), picked[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    if rank == 0:
        torch.save(model.module.state_dict(), settings["model_path"])
    dist.destroy_process_group()
    return loss.item()


def main() -> None:
    began = time.perf_counter()
    files, settings, out = Path(sys.argv[1]).read_text().splitlines(), json.loads(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train(files, vocab_size=settings["vocabulary_size"], special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.save(str(out / "tokenizer.json"))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    hf_prepare.prepare(files, str(out / "tokenizer.json"), settings["sequence_length"], out)
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else the tasks take whatever python3 the PATH names
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    settings["model_path"] = str(out / "model.pt")
    loss = TorchDistributor(num_processes=2, local_mode=False, use_gpu=False).run(train, str(out / "train.parquet"), settings)
    spark.stop()
    print(json.dumps({"loss": loss, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
