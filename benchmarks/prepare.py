"""Prepare: raw text to packed shards, same vocabulary, 2 cores, against Hugging Face datasets.

Runs on: driver.
Takes:   the sources of the Python standard library and of what is installed beside it, again and again with a first line
         that differs, until there is enough; the tokenizer is learned from the former.
Gives:   ``measure``: tokens per second in steady state (both sides have done a run before), and seconds of the cold
         command, process start to end, at three sizes. Both sides are alternated.

The tokenizer is given to both: what is measured is reading, cleaning, encoding, packing and writing. Ours does more in
that time: checks of encoding and size, exact deduplication, split, checksums, table of refused records.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.commands import output_of
from benchmarks.peers.environment import peers_python
from benchmarks.results import Figure
from pipelines.config import Platform, Recipe, load_config
from pipelines.config.datasets import TextPrepare
from pipelines.lake.paths import Lake
from pipelines.prepare.inputs import list_files
from pipelines.prepare.prepare import prepare
from pipelines.prepare.text.tokenizer import train_bpe
from pipelines.spark.session import spark_session

ROOT = Path(__file__).parents[1]
RECIPE, PLATFORM = ROOT / "conf/recipes/gpt-demo.yaml", ROOT / "conf/platforms/local.yaml"
PEER = Path(__file__).parent / "peers" / "hf_prepare.py"
WARM_RUNS, ROUNDS, STEADY_MB = 2, 3, 121
COLD_ROUNDS = {31: 3, 121: 3, 500: 1}  # by MB of text
COLD_TARGETS = {31: 1.0, 121: 0.5, 500: 0.5}  # seconds of ours over the peer's
LEARNED_BYTES = 16 * 1000**2


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = load_config(RECIPE, PLATFORM).recipe
        texts = demo_texts(recipe, folder)
        tokenizer = folder / "given-tokenizer.json"
        setting = text_section(recipe).tokenizer
        train_bpe(_utf8(texts, LEARNED_BYTES), setting.vocabulary_size).save(str(tokenizer))
        figures = []
        for megabytes in COLD_ROUNDS:
            text = folder / f"text-{megabytes}"
            write_text(text, texts, megabytes * 1000**2)
            figures.append(cold(folder, text, tokenizer, recipe, megabytes))
            if megabytes == STEADY_MB:
                figures.append(steady(folder, text, tokenizer, recipe))
            shutil.rmtree(text)
        return figures


def text_section(recipe: Recipe) -> TextPrepare:
    """
    Raises:
        TypeError: the recipe prepares something else.
    """
    if not isinstance(recipe.prepare, TextPrepare):
        raise TypeError(f"{recipe.name} prepares {recipe.prepare.kind}")
    return recipe.prepare


def demo_texts(recipe: Recipe, folder: Path) -> list[bytes]:
    """The demo's inputs with what is installed beside the standard library."""
    inputs = tuple(source.model_copy(update={"exclude": ()}) for source in text_section(recipe).inputs)
    return [Path(file.path).read_bytes() for file in list_files(inputs, folder / "lake")]


def prepared_from(recipe: Recipe, text: Path, **changed: object) -> Recipe:
    """The recipe with one folder as its input, and other settings of its section ``prepare``."""
    section = text_section(recipe)
    source = section.inputs[0].model_copy(update={"path": str(text), "pattern": None, "exclude": ()})
    return recipe.model_copy(update={"prepare": section.model_copy(update={"inputs": (source,), **changed})})


def _utf8(texts: list[bytes], limit: int) -> Iterator[str]:
    """Those that are text, ``limit`` bytes together."""
    for text in texts:
        if limit <= 0:
            return
        limit -= len(text)
        yield text.decode("utf-8", "replace")


def write_text(folder: Path, texts: list[bytes], size_bytes: int) -> None:
    """Files of ``size_bytes`` together, no two of them equal because of a repetition."""
    folder.mkdir()
    written = number = 0
    while written < size_bytes:
        turn, index = divmod(number, len(texts))
        text = (b"# turn %d\n" % turn if turn else b"") + texts[index]
        written += (folder / f"{number:07d}.py").write_bytes(text)
        number += 1


def _peer(python: Path, folder: Path, text: Path, tokenizer: Path, recipe: Recipe, *options: str) -> dict[str, float]:
    files, out = folder / "files.txt", folder / "peer"
    files.write_text("\n".join(str(path) for path in sorted(text.iterdir())))
    printed = output_of(python, PEER, files, tokenizer, text_section(recipe).sequence_length, out, *options)
    shutil.rmtree(out)
    return dict(json.loads(printed.splitlines()[-1]))


def cold(folder: Path, text: Path, tokenizer: Path, recipe: Recipe, megabytes: int) -> Figure:
    """The command as a user gives it, and the peer's script: processes from start to end."""
    python = peers_python()
    inputs = json.dumps([{"path": str(text), "format": "text"}])

    def ours() -> None:
        output_of(sys.executable, ROOT / "jobs/prepare.py", "--recipe", RECIPE, "--platform", PLATFORM,
                  "--set", f"storage.root={folder / 'lake'}", "--set", f"prepare.inputs={inputs}",
                  "--set", f"prepare.tokenizer.path={tokenizer}")
        shutil.rmtree(folder / "lake")

    seen: dict[str, list[float]] = {"ours": [], "datasets": []}
    for _ in range(COLD_ROUNDS[megabytes]):
        seen["ours"].append(_seconds(ours))
        seen["datasets"].append(_seconds(lambda: _peer(python, folder, text, tokenizer, recipe)))
        print(f"{megabytes} MB, cold: " + ", ".join(f"{side} {times[-1]:.1f} s" for side, times in seen.items()))
    return Figure(f"prepare, the cold command, {megabytes} MB, vs datasets.map(num_proc=2)", statistics.median(seen["ours"]),
                  statistics.median(seen["datasets"]), "s", COLD_TARGETS[megabytes], "python -m benchmarks prepare",
                  higher_is_better=False, note=f"processes from start to end, medians of {COLD_ROUNDS[megabytes]} rounds")


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def steady(folder: Path, text: Path, tokenizer: Path, recipe: Recipe) -> Figure:
    """Both sides have done a run before in the same process."""
    python = peers_python()
    platform = Platform.model_validate({"spark": {"master": "local[2]", "conf": {"spark.driver.memory": "4g"}}})
    recipe = prepared_from(recipe, text, tokenizer=text_section(recipe).tokenizer.model_copy(update={"path": str(tokenizer)}))
    seen: dict[str, list[float]] = {"ours": [], "datasets": []}
    with spark_session(platform, "bench-prepare") as spark:
        for round_ in range(WARM_RUNS + ROUNDS):
            lake = Lake.at(folder / "lake")
            began = time.perf_counter()
            manifest = prepare(spark, recipe, lake, report=lambda line: None)
            seconds = time.perf_counter() - began
            shutil.rmtree(lake.root)
            if round_ < WARM_RUNS:
                continue
            seen["ours"].append(sum(manifest.units.values()) / seconds)
            peer = _peer(python, folder, text, tokenizer, recipe, "--warm")
            seen["datasets"].append(peer["tokens"] / peer["seconds"])
            print("steady: " + ", ".join(f"{side} {rates[-1]:,.0f} tokens/s" for side, rates in seen.items()))
    return Figure("prepare, text to packed shards, vs datasets.map(num_proc=2)", statistics.median(seen["ours"]),
                  statistics.median(seen["datasets"]), "tokens/s", 4.0, "python -m benchmarks prepare",
                  note=f"steady state, medians of {ROUNDS} alternated rounds")
