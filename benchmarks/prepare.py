"""Prepare: raw text to packed shards, same vocabulary, 2 cores, against Hugging Face datasets.

Runs on: driver.
Takes:   the sources of the Python standard library and of what is installed beside it; the tokenizer is learned from the
         former.
Gives:   ``measure``: tokens per second in steady state (both sides have done a run before), alternated.

The tokenizer is given to both: what is measured is reading, cleaning, encoding, packing and writing. Ours does more in
that time: checks of encoding and size, exact deduplication, split, checksums, table of refused records.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.commands import output_of
from benchmarks.peers.environment import peers_python
from benchmarks.results import Figure
from pipelines.config import Platform, load_config
from pipelines.prepare.inputs import list_files
from pipelines.prepare.stage import prepare
from pipelines.session import spark_session
from pipelines.tables.manifest import TOKENIZER_NAME
from pipelines.tables.paths import Lake

ROOT = Path(__file__).parents[1]
PEER = Path(__file__).parent / "peers" / "hf_prepare.py"
WARM_RUNS, ROUNDS = 2, 3


def measure() -> list[Figure]:
    config = load_config(ROOT / "conf/recipes/gpt-demo.yaml", ROOT / "conf/platforms/local.yaml")
    platform = Platform.model_validate({"spark": {"master": "local[2]", "conf": {"spark.driver.memory": "4g"}}})
    python = peers_python()
    with tempfile.TemporaryDirectory() as name, spark_session(platform, "bench-prepare") as spark:
        folder = Path(name)
        first = prepare(spark, config.recipe, Lake.at(folder / "first"))  # trains the tokenizer that both sides are given
        tokenizer = folder / "given-tokenizer.json"
        shutil.copy(Lake.at(folder / "first").dataset(first.name, first.version) / TOKENIZER_NAME, tokenizer)
        # what is installed beside the library is text as well: enough of it that start-up costs of either side vanish
        section = config.recipe.prepare.model_copy(update={"inputs": tuple(
            source.model_copy(update={"exclude": ()}) for source in config.recipe.prepare.inputs)})
        recipe = config.recipe.model_copy(update={"prepare": section.model_copy(update={
            "tokenizer": section.tokenizer.model_copy(update={"path": str(tokenizer)})})})
        files = folder / "files.txt"
        files.write_text("\n".join(str(file.path) for file in list_files(section.inputs, folder / "first")))
        seen: dict[str, list[float]] = {"ours": [], "datasets": []}
        for i in range(WARM_RUNS + ROUNDS):
            lake = Lake.at(folder / f"ours-{i}")
            began = time.perf_counter()
            manifest = prepare(spark, recipe, lake, report=lambda line: None)
            seconds = time.perf_counter() - began
            tokens = manifest.counts["train_tokens"] + manifest.counts["validation_tokens"]
            shutil.rmtree(lake.root)
            if i < WARM_RUNS:
                continue
            seen["ours"].append(tokens / seconds)
            out = folder / "peer"
            peer = json.loads(output_of(python, PEER, files, tokenizer, section.sequence_length, out).splitlines()[-1])
            seen["datasets"].append(peer["tokens"] / peer["seconds"])
            shutil.rmtree(out)
            print(", ".join(f"{side} {rates[-1]:,.0f} tokens/s" for side, rates in seen.items()))
    return [Figure("prepare, text to packed shards, vs datasets.map(num_proc=2)", statistics.median(seen["ours"]),
                   statistics.median(seen["datasets"]), "tokens/s", 4.0, "python -m benchmarks prepare",
                   note=f"steady state, medians of {ROUNDS} alternated rounds")]
