"""What the tests of prepare share: a small recipe, and a dataset read back as the documents in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipelines.config import Recipe
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake

WORDS = ["the", "quick", "brown", "fox", "over", "a", "señor", "Müller", "läuft", "東京", "🙂", "x", "=", "+", "1\n"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.at(tmp_path / "the lake")


def make_recipe(*inputs: str | Path | dict[str, Any], name: str = "test", **prepare: Any) -> Recipe:
    """A recipe with small windows; inputs as paths or sections."""
    sections = [source if isinstance(source, dict) else {"path": str(source)} for source in inputs]
    settings = {"sequence_length": 16, "rows_per_row_group": 8, "tokenizer": {"kind": "bytes"},
                "split": {"kind": "hash", "validation_fraction": 0.3}, **prepare}
    return Recipe.model_validate({"name": name, "prepare": {"inputs": sections, **settings}, "train": {"steps": 1000}})


def remote_url(path: str | Path) -> str:
    """A file or folder in the temporary folder as a URL that only Spark reads."""
    return f"viewfs://tests{path}"


def make_text(seed: int, words: int = 60) -> str:
    """Text that differs for every seed."""
    random = np.random.default_rng(seed)
    return f"document {seed}: " + " ".join(random.choice(WORDS, words))


def write_texts(folder: Path, count: int, words: int = 60) -> list[str]:
    """``count`` different text files; their contents."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [make_text(seed, words) for seed in range(count)]
    for seed, text in enumerate(texts):
        (folder / f"{seed:04d}.txt").write_bytes(text.encode())
    return texts


def streams(lake: Lake, manifest: Manifest, split: str) -> list[list[int]]:
    """The token stream of each shard, put together again from its windows."""
    folder, found = lake.root / lake.dataset(manifest.name, manifest.version), []
    for shard in manifest.shards(split):
        table = pq.read_table(folder / shard.path)
        stream: list[int] = []
        for tokens, length in zip(table["tokens"].to_pylist(), table["length"].to_pylist(), strict=True):
            assert len(tokens) == manifest.task.sizes["sequence_length"] + 1
            assert set(tokens[length:]) <= {manifest.task.facts["end_of_text_id"]}
            if stream:
                assert stream[-1] == tokens[0]  # neighbours share one token
            stream += tokens[1 if stream else 0:length]
        found.append(stream)
    return found


def documents(lake: Lake, manifest: Manifest, split: str) -> list[str]:
    """The texts of a split, decoded with nothing but tokenizer.json."""
    tokenizer = Tokenizer.from_file(str(lake.root / lake.dataset(manifest.name, manifest.version) / "tokenizer.json"))
    end, texts = manifest.task.facts["end_of_text_id"], []
    for stream in streams(lake, manifest, split):
        assert stream[0] == end and stream[-1] == end
        current: list[int] = []
        for token in stream[1:]:
            if token == end:
                texts.append(tokenizer.decode(current, skip_special_tokens=False))
                current = []
            else:
                current.append(token)
    return texts


@pytest.fixture
def silent() -> Callable[[str], None]:
    return lambda message: None
