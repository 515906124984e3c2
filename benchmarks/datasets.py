"""Datasets for benchmarks, published without Spark so that only the thing measured is measured.

Runs on: driver.
Takes:   a folder and sizes.
Gives:   a dataset folder with random tokens.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models

from pipelines.lake.manifest import TOKENIZER_NAME, Baseline, Manifest, Shard, row_group_runs
from pipelines.lake.store import FolderStore, file_sha256
from pipelines.lake.task_facts import shard_schema
from pipelines.prepare.text.language_rows import language_columns, language_facts


def publish_random(folder: Path, *, rows: int, sequence_length: int, vocabulary_size: int, rows_per_shard: int,
                   rows_per_row_group: int = 512, validation_rows: int = 16, name: str = "random") -> Manifest:
    """Uniformly random tokens: what they are does not change how fast they are read or trained on."""
    folder.mkdir(parents=True)
    random, end_of_text_id = np.random.default_rng(0), vocabulary_size - 1
    schema = shard_schema(language_columns(sequence_length, end_of_text_id))
    splits = {}
    for split, total in (("train", rows), ("validation", validation_rows)):
        shards = []
        for i, first in enumerate(range(0, total, rows_per_shard)):
            count = min(rows_per_shard, total - first)
            width = sequence_length + 1
            tokens = random.integers(0, vocabulary_size, (count, width), dtype=np.int32)
            offsets = pa.array(np.arange(0, count * width + 1, width, dtype=np.int32))
            path = folder / f"{split}-{i:05d}.parquet"
            pq.write_table(pa.Table.from_arrays(
                [pa.ListArray.from_arrays(offsets, pa.array(tokens.ravel())), pa.array(np.full(count, width, np.int32))],
                schema=schema), path, row_group_size=rows_per_row_group, compression="zstd")
            groups = row_group_runs(min(rows_per_row_group, count - at) for at in range(0, count, rows_per_row_group))
            shards.append(Shard(path.name, groups, path.stat().st_size, file_sha256(path)))
        splits[split] = tuple(shards)
    Tokenizer(models.WordLevel({str(i): i for i in range(vocabulary_size)}, unk_token="0")).save(str(folder / TOKENIZER_NAME))
    manifest = Manifest(
        name=name, version=folder.name, input_fingerprint="", recipe_hash="", splits=splits,
        task=language_facts(sequence_length=sequence_length, vocabulary_size=vocabulary_size, end_of_text_id=end_of_text_id,
                            tokenizer_sha256=file_sha256(folder / TOKENIZER_NAME)),
        units={"train": rows * sequence_length, "validation": validation_rows * sequence_length}, counts={},
        baselines=(Baseline("guessing", math.log(vocabulary_size)),))
    manifest.save(FolderStore(folder))
    return manifest
