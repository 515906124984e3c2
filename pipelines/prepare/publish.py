"""A version is prepared by one process at a time and published whole; its table rows appear exactly once.

Runs on: driver.
Takes:   a finished staging folder, a manifest.
Gives:   the dataset folder; one file per version in the tables ``rejected`` and ``datasets``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import AlreadyRunningError, DataError
from pipelines.lake.claims import claimed
from pipelines.lake.manifest import MANIFEST_NAME, Manifest
from pipelines.lake.paths import Lake
from pipelines.lake.schemas import arrow_schema
from pipelines.lake.store import TEMPORARY_PREFIX, storage_errors, temporary_beside

CLAIM_PREFIX = ".lock-"


@contextmanager
def version_claimed(lake: Lake, name: str, version: str) -> Iterator[None]:
    """Held while a version is prepared. What killed runs left of it is removed first.

    Raises:
        AlreadyRunningError: another process prepares this version now.
        StorageError: the lake cannot be written.
    """
    refusal = AlreadyRunningError(f"dataset {name} {version}", "is being prepared by another process",
                                  "wait until it ends, then give the same command again")
    with claimed(lake.datasets(name) / f"{CLAIM_PREFIX}{version}", refusal):
        remove_stale(lake, name, version)
        yield


def remove_stale(lake: Lake, name: str, version: str) -> None:
    """Removes what killed runs left of this version; only for the holder of its claim."""
    for left in (*lake.datasets(name).glob(f"{TEMPORARY_PREFIX}{version}-*"),
                 *(stale for table in ("rejected", "datasets")
                   for stale in lake.table(table).glob(f"{TEMPORARY_PREFIX}{name}-{version}.parquet-*"))):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def published(lake: Lake, name: str, version: str) -> Manifest | None:
    """The manifest of a version that is there, or None.

    Raises:
        DataError: the folder is there, but a shard is gone or has another size, or input was missing.
    """
    folder = lake.dataset(name, version)
    if not folder.exists():
        return None
    remedy = f"remove {folder} and prepare again"
    if not (folder / MANIFEST_NAME).exists():
        raise DataError(str(folder / MANIFEST_NAME), "is missing", remedy)
    manifest = Manifest.load(folder)
    if missing := manifest.counts.get("rejected_unreadable"):  # which the first release counted and published
        raise DataError(str(folder), f"was made without {missing} files that could not be read", remedy)
    for shard in (shard for shards in manifest.splits.values() for shard in shards):
        path = folder / shard.path
        size = path.stat().st_size if path.exists() else None
        if size != shard.bytes:
            found = "is missing" if size is None else f"has {size} bytes, not {shard.bytes}"
            raise DataError(str(path), found, remedy)
    return manifest


def publish_rejected(parts: list[Path], lake: Lake, name: str, version: str) -> None:
    """One file in table ``rejected`` from the parts, in order; replaces the one of an earlier try."""
    target = lake.table("rejected") / f"{name}-{version}.parquet"
    schema = arrow_schema("rejected")
    with _table_file(target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        writer.write_table(schema.empty_table())  # a table without rows still has its columns
        for part in parts:
            for batch in pq.ParquetFile(part).iter_batches():
                writer.write_batch(batch)


def publish_dataset_row(manifest: Manifest, lake: Lake) -> None:
    """The version's row in table ``datasets``, once however often this is called.

    Raises:
        StorageError: the table cannot be written.
    """
    target = lake.table("datasets") / f"{manifest.name}-{manifest.version}.parquet"
    if target.exists():
        return
    folder = lake.dataset(manifest.name, manifest.version)
    shards = [shard for shards in manifest.splits.values() for shard in shards]
    counts = manifest.counts
    row = {
        "dataset_name": manifest.name, "dataset_version": manifest.version,
        "created": datetime.fromtimestamp((folder / MANIFEST_NAME).stat().st_mtime, UTC),
        "sequence_length": manifest.sequence_length, "vocabulary_size": manifest.vocabulary_size,
        "train_rows": manifest.rows("train"), "validation_rows": manifest.rows("validation"),
        "train_tokens": counts["train_tokens"], "validation_tokens": counts["validation_tokens"],
        "input_records": counts["input_records"], "rejected_records": counts["input_records"] - counts["documents"],
        "documents": counts["documents"], "shards": len(shards), "bytes": sum(shard.bytes for shard in shards),
        "uniform_loss": manifest.baselines["uniform"], "unigram_loss": manifest.baselines["unigram"],
        "input_fingerprint": manifest.input_fingerprint, "recipe_hash": manifest.recipe_hash, "path": str(folder)}
    with _table_file(target) as temporary:
        pq.write_table(pa.Table.from_pylist([row], schema=arrow_schema("datasets")), temporary)


@contextmanager
def _table_file(target: Path) -> Iterator[Path]:
    """A temporary file that becomes the table's file when the block ends well."""
    temporary = temporary_beside(target)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
