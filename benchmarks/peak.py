"""What this machine can do at most: torch's own matrix products, one process on each core.

Runs on: driver; ``python -m benchmarks.peak PRECISION`` in each process.
Takes:   a precision, the number of processes.
Gives:   floating-point operations per second of all processes together; the model FLOPs of a token.

Model FLOPs count forward and backward of the matrix products and of the whole attention matrix, nothing twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from pipelines.launch.rank_process import ALLOCATOR
from pipelines.models.gpt.facts import facts as gpt_facts
from pipelines.models.gpt.settings import GptModel
from pipelines.prepare.text.language_rows import language_facts

SIZES = (512, 1024, 2048)
SECONDS = 1.0  # of each size


def matmul_flops(precision: str, processes: int) -> float:
    """Per second, of all processes at once; of each the best size."""
    running = [subprocess.Popen([sys.executable, "-m", "benchmarks.peak", precision], stdout=subprocess.PIPE, text=True,
                                env={**os.environ, **ALLOCATOR}) for _ in range(processes)]
    return sum(float(process.communicate(timeout=120)[0]) for process in running)


def flops_per_token(model: dict[str, Any], vocabulary_size: int, sequence_length: int) -> float:
    facts = gpt_facts(GptModel(**model), language_facts(vocabulary_size=vocabulary_size, sequence_length=sequence_length,
                                                        end_of_text_id=0, tokenizer_sha256=""))
    return sum(layer.flops_per_sample for layer in facts.layers) / sequence_length


def _best(precision: str) -> float:
    import torch

    from pipelines.train.widened_products import has_bfloat16_products, widen_products

    torch.set_num_threads(1)
    if precision == "bf16" and not has_bfloat16_products():  # the peak is that of the way in which is multiplied
        widen_products()
    best = 0.0
    for size in SIZES:
        a, b = (torch.randn(size, size, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[precision]) for _ in range(2))
        out = torch.empty_like(a)
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            began = time.perf_counter()
            torch.mm(a, b, out=out)
            best = max(best, 2.0 * size**3 / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    print(_best(sys.argv[1]))
