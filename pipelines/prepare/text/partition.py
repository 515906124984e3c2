"""One Spark partition of documents becomes its shards: drop duplicates, split, encode, pack, write.

Runs on: executors.
Takes:   rows of ``documents`` sorted by key, in Arrow batches.
Gives:   Parquet files in a folder of this attempt's own, and one JSON outcome that lists them.

Nothing here depends on the machine, so the same partition always gives the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.store import file_sha256, synced_file
from pipelines.lake.task_facts import shard_schema
from pipelines.prepare.hash_split import HashSplit
from pipelines.prepare.rejected_rows import COMPRESSION, REJECTED_NAME, RejectedWriter
from pipelines.prepare.task_outcome import task_outcome
from pipelines.prepare.text.documents import COPY, FAULT
from pipelines.prepare.text.encoders import Encoder, load_encoder
from pipelines.prepare.text.language_rows import language_columns
from pipelines.prepare.text.pack_settings import PackSettings
from pipelines.prepare.text.packing import WindowPacker, Windows, predicted_tokens
from pipelines.prepare.text.remote_documents import READ, read_key


def pack_partition(batches: Iterator[pa.RecordBatch], settings: PackSettings) -> Iterator[pa.RecordBatch]:
    """The function of ``DataFrame.mapInArrow``: one row, the outcome (``task_outcome.py``).

    It holds ``{"has_rejected": whether there are refused rows, "counts": {...}, "examples": {reason: [source, position,
    detail]}, "read_bytes": {read_key: bytes}, "shards": {split: {...}}}``.
    """
    return task_outcome(settings.staging, lambda folder: _pack(batches, settings, folder))


def _pack(batches: Iterator[pa.RecordBatch], settings: PackSettings, folder: Path) -> dict[str, Any]:
    packer = PartitionPacker(settings, folder)
    for batch in batches:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if row[4] == FAULT:
                place, _, problem = row[5].partition("\t")
                return {"fault": {"kind": "data", "place": place, "problem": problem}}
            packer.add(*row)
    return packer.finish()


class PartitionPacker:
    """Routes each record of a partition to its split or to the rejected rows."""

    def __init__(self, settings: PackSettings, folder: Path) -> None:
        self._settings = settings
        self._encoder: Encoder = load_encoder(settings.encoder, settings.staging, settings.tokenizer_sha256)
        self._shards = {split: ShardWriter(settings, folder / f"{split}.parquet") for split in settings.splits}
        self._rejected = RejectedWriter(settings.dataset_name, settings.dataset_version, folder / REJECTED_NAME)
        self._counts: Counter[str] = Counter()
        self._kept_key: bytes | None = None  # of the newest record that was no duplicate
        self._kept_place = ""
        self._examples: dict[str, tuple[str, int, str | None]] = {}  # the first refused record by reason
        self._read_bytes: Counter[str] = Counter()  # of long files at URLs
        self._hash_split = HashSplit(settings.validation_fraction, settings.test_fraction)

    def add(self, key: bytes, source: str, position: int, content: bytes | None, reason: str | None, detail: str | None,
            size: int) -> None:
        """One row of ``documents``."""
        if reason == READ:
            self._read_bytes[read_key(position, source)] += size
            return
        self._counts["input_records"] += 1
        if self._settings.deduplicate and (content is not None or reason == COPY):
            if key == self._kept_key:  # a row without content is never the first of its key
                content, reason, detail = None, "duplicate", f"same content as {self._kept_place}"
            else:
                self._kept_key, self._kept_place = key, f"{source} at {position}"
        parts = self._parts(key, content) if content is not None else []
        encoded = [(split, self._encoder.encode(part)) for split, part in parts]
        if content is not None and any(tokens is None for _, tokens in encoded):
            content, reason, detail = None, "unencodable", "the tokenizer does not give the same text back"
        if content is None:
            self._counts[f"rejected_{reason}"] += 1
            self._examples.setdefault(str(reason), (source, position, detail))
            self._rejected.add(source, position, reason, detail, size)
            return
        self._counts["documents"] += 1
        self._counts["text_bytes"] += len(content)
        for (split, part), (_, tokens) in zip(parts, encoded, strict=True):
            if tokens is not None:
                self._counts[f"{split}_documents"] += 1
                self._counts[f"{split}_text_bytes"] += len(part)
                self._shards[split].add(tokens)

    def _parts(self, key: bytes, content: bytes) -> list[tuple[str, bytes]]:
        """The content by split: whole by its hash, or its first characters, the next and its last."""
        if self._settings.split_kind == "hash":
            return [(self._hash_split.of(key), content)]
        text = content.decode()
        train, end = (int(len(text) * (1.0 - part)) for part in (
            self._settings.validation_fraction + self._settings.test_fraction, self._settings.test_fraction))
        parts = (("train", text[:train]), ("validation", text[train:end]), ("test", text[end:]))
        return [(split, part.encode()) for split, part in parts if part]

    def finish(self) -> dict[str, Any]:
        """Closes the files; what they hold."""
        return {"has_rejected": self._rejected.close(), "counts": dict(self._counts), "examples": self._examples,
                "read_bytes": self._read_bytes, "shards": {split: shard.close() for split, shard in self._shards.items()}}


class ShardWriter:
    """Writes one shard with exactly ``rows_per_row_group`` rows in each row group but the last."""

    def __init__(self, settings: PackSettings, path: Path) -> None:
        self._path, self._rows = path, settings.rows_per_row_group
        self._packer = WindowPacker(settings.sequence_length, settings.end_of_text_id)
        self._schema = shard_schema(language_columns(settings.sequence_length, settings.end_of_text_id))
        self._file: Any = None
        self._writer: pq.ParquetWriter | None = None
        self._row_groups: list[int] = []
        self._counts_V = np.zeros(settings.vocabulary_size, dtype=np.int64)

    def add(self, tokens: np.ndarray) -> None:
        """One text's tokens."""
        self._packer.add(tokens)
        while self._packer.full_windows >= self._rows:
            self._write(self._packer.take(self._rows))

    def close(self) -> dict[str, Any] | None:
        """Writes what is left. The shard's facts, or None where it would hold no row."""
        full = self._packer.take(self._packer.full_windows)
        tail = self._packer.take_tail()
        self._write(Windows(*(np.concatenate(pair) for pair in zip(full, tail, strict=True))))
        if self._writer is None:
            return None
        self._writer.close()
        self._file.close()
        np.save(self._path.with_suffix(".npy"), self._counts_V, allow_pickle=False)
        return {"row_groups": self._row_groups, "bytes": self._path.stat().st_size, "sha256": file_sha256(self._path),
                "tokens": int(self._counts_V.sum())}

    def _write(self, windows: Windows) -> None:
        rows = len(windows.length_R)
        if rows == 0:
            return
        if self._writer is None:
            self._file = synced_file(self._path)  # closed by close()
            self._writer = pq.ParquetWriter(self._file, self._schema, compression=COMPRESSION, use_dictionary=False,
                                            write_statistics=False)
        width = windows.tokens_RT.shape[1]
        offsets = pa.array(np.arange(0, rows * width + 1, width, dtype=np.int32))
        tokens = pa.ListArray.from_arrays(offsets, pa.array(windows.tokens_RT.ravel()))
        self._writer.write_table(pa.Table.from_arrays([tokens, pa.array(windows.length_R)], schema=self._schema), rows)
        self._row_groups.append(rows)
        self._counts_V += np.bincount(predicted_tokens(windows), minlength=len(self._counts_V))
