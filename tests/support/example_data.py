"""Small published datasets, made without Spark."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers

from pipelines.config import Config, Recipe
from pipelines.lake.manifest import TOKENIZER_NAME, Baseline, Manifest, Shard, row_group_runs
from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore, file_sha256
from pipelines.lake.task_facts import TaskFacts, shard_schema
from pipelines.prepare.text.language_rows import language_columns, language_facts

VOCABULARY_SIZE = 32
END_OF_TEXT = VOCABULARY_SIZE - 1


def example_config(**overrides) -> Config:
    """A tiny recipe on a local platform; keys are dotted with ``__`` for the dot."""
    content = {"recipe": {"name": "example", "prepare": {"inputs": [{"path": "none"}], "sequence_length": 16},
                          "data": {"num_lanes": 4, "window_row_groups": 2},
                          "model": {"num_layers": 2, "num_heads": 2, "width": 16},
                          "optimizer": {"learning_rate": 3e-3}, "schedule": {"warmup_steps": 2},
                          "train": {"global_batch_samples": 8, "steps": 10, "evaluate_every_steps": 5},
                          "task": {"sample_tokens": 0, "sample_prompt": "a"}},
               "platform": {"spark": {"master": "local[4]"}, "layout": {"micro_batch_samples": 3},
                            "reader": {"kind": "arrow"}}}
    for key, value in overrides.items():
        *sections, last = key.split("__")
        at = content["recipe" if key.split("__")[0] in Recipe.model_fields else "platform"]
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = value
    if content["recipe"]["prepare"].get("kind") == "images":
        del content["recipe"]["task"]
    return Config.from_json(json.dumps(content))


def language(vocabulary_size: int, sequence_length: int) -> TaskFacts:
    """The task of a dataset with these sizes; its last token ends a text."""
    return language_facts(vocabulary_size=vocabulary_size, sequence_length=sequence_length, end_of_text_id=vocabulary_size - 1,
                          tokenizer_sha256="")


def sizes(vocabulary_size: int, sequence_length: int) -> dict[str, int]:
    """What a dataset decides of a language model."""
    return {"vocabulary_size": vocabulary_size, "sequence_length": sequence_length}


def publish_example(lake: Lake, *, train_rows: int = 37, validation_rows: int = 9, rows_per_shard: int = 11,
                    rows_per_row_group: int = 4, sequence_length: int = 16, name: str = "example") -> Manifest:
    """A dataset of counting sequences (easy to learn) with some short rows, in the lake."""
    folder = lake.root / lake.dataset(name, "v1")
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    splits = {}
    for split, rows in (("train", train_rows), ("validation", validation_rows)):
        starts = random.integers(0, END_OF_TEXT, rows)
        tokens = (starts[:, None] + np.arange(sequence_length + 1)) % END_OF_TEXT
        lengths = np.where(random.random(rows) < 0.2, random.integers(2, sequence_length + 1, rows), sequence_length + 1)
        tokens[np.arange(sequence_length + 1) >= lengths[:, None]] = END_OF_TEXT
        splits[split] = tuple(
            _write_shard(folder, f"{split}-{i:05d}.parquet", tokens[first : first + rows_per_shard],
                         lengths[first : first + rows_per_shard], rows_per_row_group)
            for i, first in enumerate(range(0, rows, rows_per_shard)))
    tokenizer = Tokenizer(models.WordLevel({chr(97 + i): i for i in range(VOCABULARY_SIZE)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(folder / TOKENIZER_NAME))
    task = language_facts(sequence_length=sequence_length, vocabulary_size=VOCABULARY_SIZE, end_of_text_id=END_OF_TEXT,
                          tokenizer_sha256=file_sha256(folder / TOKENIZER_NAME))
    manifest = Manifest(name=name, version="v1", task=task, input_fingerprint="example", recipe_hash="example", splits=splits,
                        units={}, counts={}, baselines=(Baseline("guessing", math.log(VOCABULARY_SIZE)),
                                                        Baseline("token frequencies", 3.4)))
    manifest.save(FolderStore(folder))
    return manifest


def _write_shard(folder: Path, name: str, tokens: np.ndarray, lengths: np.ndarray, rows_per_row_group: int) -> Shard:
    rows, width = tokens.shape
    schema = shard_schema(language_columns(width - 1, END_OF_TEXT))
    offsets = pa.array(np.arange(0, rows * width + 1, width, dtype=np.int32))
    table = pa.Table.from_arrays([pa.ListArray.from_arrays(offsets, pa.array(tokens.astype(np.int32).ravel())),
                                  pa.array(lengths.astype(np.int32))], schema=schema)
    pq.write_table(table, folder / name, row_group_size=rows_per_row_group)
    groups = row_group_runs(min(rows_per_row_group, rows - first) for first in range(0, rows, rows_per_row_group))
    return Shard(name, groups, (folder / name).stat().st_size, file_sha256(folder / name))
