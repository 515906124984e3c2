"""Quality: the well-known character-level Shakespeare setting through the whole pipeline on 2 ranks.

Runs on: driver.
Takes:   ``tinyshakespeare.txt``, from the folder in SPARKRING_DATA or ``../shared/data``.
Gives:   ``measure``: our validation losses, over all validation windows: of the GPT against the published 1.88; of today's
         architecture, means of three seeds, with AdamW, with Muon, and with Muon in as many FLOPs as the GPT takes.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.commands import output_of
from benchmarks.results import Figure

ROOT = Path(__file__).parents[1]
PUBLISHED = 1.88
SEEDS = (1, 2, 1337)
# Of the GPT's 3.96 GFLOP a step takes 4.26 (6 for each weight of a matrix and token, 12 x 64 tokens, and attention's), and Muon's
# five rounds 2.77: of a matrix m x n, m <= n, 5 (4 m m n + 2 m m m).
EQUAL_FLOPS_STEPS = 1127


def final_loss(recipe: str, text: Path, *overrides: str) -> float:
    """Of the whole pipeline's run."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--recipe", str(ROOT / "conf/recipes" / recipe), "--platform", str(ROOT / "conf/platforms/local.yaml"),
                    "--set", f"prepare.inputs=[{{path: '{text}'}}]", "--set", f"storage.root={folder}",
                    *(word for override in overrides for word in ("--set", override))]
        output_of(sys.executable, ROOT / "jobs/pipeline.py", *settings)
        summary = json.loads(output_of(sys.executable, ROOT / "jobs/report.py", *settings, "--json"))
    loss: float = summary["loss"]["validation_last"]
    return loss


def measure() -> list[Figure]:
    text = Path(os.environ.get("SPARKRING_DATA", ROOT.parent / "shared" / "data")) / "tinyshakespeare.txt"
    if not text.is_file():
        raise FileNotFoundError(f"{text}: the quality benchmark reads tinyshakespeare.txt; set SPARKRING_DATA to its folder")

    def figure(name: str, recipe: str, seeds: tuple[int, ...], most: float, note: str, *overrides: str) -> Figure:
        losses = [final_loss(recipe, text, f"train.seed={seed}", *overrides) for seed in seeds]
        print(f"{name}: " + ", ".join(f"{loss:.4f}" for loss in losses), flush=True)
        return Figure(name, statistics.mean(losses), PUBLISHED, "nats", most / PUBLISHED, "python -m benchmarks quality",
                      higher_is_better=False, note=note)

    qwen3, note = "shakespeare-qwen3.yaml", f"mean of seeds {', '.join(map(str, SEEDS))}; published: a GPT's"
    return [figure("shakespeare-char validation loss, 2 ranks", "shakespeare-char.yaml", (1337,), 1.90,
                   "published: 1.88 with a learning rate of 1e-3; ours is 2e-3 (LOG.md)"),
            figure("shakespeare-qwen3 with AdamW", qwen3, SEEDS, 1.68, note, "optimizer={kind: adamw, learning_rate: 2e-3, "
                   "beta2: 0.99}"),
            figure("shakespeare-qwen3 with Muon", qwen3, SEEDS, 1.60, note),
            figure("shakespeare-qwen3 with Muon, in the GPT's FLOPs", qwen3, SEEDS, 1.66,
                   f"{note}; {EQUAL_FLOPS_STEPS} steps", f"train.steps={EQUAL_FLOPS_STEPS}",
                   f"train.evaluate_every_steps={EQUAL_FLOPS_STEPS}")]
