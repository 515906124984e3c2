"""Whole: 31 MB of text to a model trained for 60 steps, from a cold start, against one script of common parts.

Runs on: driver.
Takes:   the Python standard library's sources.
Gives:   ``measure``: seconds of ``jobs/pipeline.py`` against a script with datasets, TorchDistributor and DDP.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.commands import output_of
from benchmarks.peers.environment import peers_python
from benchmarks.prepare import text_section
from benchmarks.results import Figure
from pipelines.config import load_config
from pipelines.prepare.inputs import list_files

ROOT = Path(__file__).parents[1]
PEER = Path(__file__).parent / "peers" / "whole.py"
STEPS, ROUNDS = 60, 2
GPT = {"num_layers": 4, "num_heads": 4, "width": 192}  # the peer trains one


def is_text(path: str) -> bool:
    """The peer's tokenizer stops at bytes that are not UTF-8; ours counts such files and goes on."""
    try:
        Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def measure() -> list[Figure]:
    recipe_path, platform_path = ROOT / "conf/recipes/gpt-demo.yaml", ROOT / "conf/platforms/local.yaml"
    recipe = load_config(recipe_path, platform_path).recipe
    python = peers_python()
    prepare = text_section(recipe)
    settings = {"vocabulary_size": prepare.tokenizer.vocabulary_size, "sequence_length": prepare.sequence_length,
                **GPT, "global_batch_samples": recipe.train.global_batch_samples, "steps": STEPS}
    seen: dict[str, list[float]] = {"ours": [], "peer": []}
    for i in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = folder / "files.txt"
            paths = [file.path for file in list_files(recipe.prepare.inputs, folder / "lake")]
            files.write_text("\n".join(path for path in paths if is_text(path)))
            began = time.perf_counter()
            # the peer neither evaluates nor generates, so ours evaluates once, on few rows, and generates nothing
            output_of(sys.executable, ROOT / "jobs/pipeline.py", "--recipe", recipe_path, "--platform", platform_path,
                      "--set", f"storage.root={folder / 'lake'}", "--set", f"train.steps={STEPS}",
                      "--set", f"model={json.dumps({'kind': 'gpt', **GPT})}", "--set", "optimizer={kind: adamw}",
                      "--set", f"train.evaluate_every_steps={STEPS}", "--set", "task.sample_tokens=0",
                      "--set", "prepare.split.validation_fraction=0.002")
            seen["ours"].append(time.perf_counter() - began)
            began = time.perf_counter()
            output_of(python, PEER, files, json.dumps(settings), folder / "peer")
            seen["peer"].append(time.perf_counter() - began)
            print(f"round {i + 1} of {ROUNDS}: ours {seen['ours'][-1]:.1f} s, peer {seen['peer'][-1]:.1f} s")
    ours, peer = statistics.median(seen["ours"]), statistics.median(seen["peer"])
    return [Figure("whole: text to trained model, cold start", ours, peer, "s", 1 / 1.3, "python -m benchmarks whole",
                   higher_is_better=False, note="the target is 1.3 times as fast")]
