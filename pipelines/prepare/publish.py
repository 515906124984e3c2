"""A version is prepared by one process at a time and published whole; its table rows appear exactly once.

Runs on: driver.
Takes:   a dataset's name and version; its manifest, once it is made.
Gives:   the version's claim, what is there of it, and one file per version in the tables ``rejected`` and ``datasets``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import AlreadyRunningError, DataError
from pipelines.lake.claims import Claim, claimed
from pipelines.lake.manifest import MANIFEST_NAME, SPLITS, Manifest
from pipelines.lake.paths import Lake
from pipelines.lake.schemas import arrow_schema
from pipelines.lake.store import Store


@contextmanager
def version_claimed(lake: Lake, name: str, version: str) -> Iterator[Claim]:
    """Held while a version is prepared. What killed runs left of it is removed first.

    Raises:
        AlreadyRunningError: another process prepares this version now.
        StorageError: the lake cannot be written.
    """
    refusal = AlreadyRunningError(f"dataset {name} {version}", "is being prepared by another process",
                                  "wait until it ends, then give the same command again")
    with claimed(lake.store, lake.version_claim(name, version), refusal) as claim:
        remove_stale(lake, name, version)
        yield claim


def remove_stale(lake: Lake, name: str, version: str) -> None:
    """Removes what killed runs left of this version; only for the holder of its claim."""
    lake.store.clear_litter(lake.dataset(name, version))
    for table in ("rejected", "datasets"):
        lake.store.clear_litter(table_file(lake, table, name, version))


def published(lake: Lake, name: str, version: str) -> Manifest | None:
    """The manifest of a version that is there, or None.

    Raises:
        DataError: the folder is there, but a shard is gone or has another size, or input was missing.
    """
    store, folder = lake.store, lake.dataset(name, version)
    if not is_there(lake, name, version):
        return None
    remedy = f"remove {store.place(folder)} and prepare again"
    if store.facts(f"{folder}/{MANIFEST_NAME}") is None:
        raise DataError(store.place(f"{folder}/{MANIFEST_NAME}"), "is missing", remedy)
    manifest = Manifest.load(store.below(folder))
    if missing := manifest.counts.get("rejected_unreadable"):  # which the first release counted and published
        raise DataError(store.place(folder), f"was made without {missing} files that could not be read", remedy)
    if damage := manifest.damage(store.below(folder)):
        raise DataError(*damage, remedy)
    return manifest


def is_there(lake: Lake, name: str, version: str) -> bool:
    """Whether the version has appeared; a folder of it may be damaged, and lack its manifest."""
    if lake.store.folders_appear_whole:
        return version in lake.store.names(lake.datasets(name))
    return lake.store.facts(f"{lake.dataset(name, version)}/{MANIFEST_NAME}") is not None


def table_file(lake: Lake, table: str, name: str, version: str) -> str:
    """A version's rows in a table."""
    return f"{lake.table(table)}/{name}-{version}.parquet"


def publish_rejected(parts: list[str], files: Store, lake: Lake, name: str, version: str) -> None:
    """One file in table ``rejected`` from the parts, in order; replaces the one of an earlier try.

    Args:
        parts: keys in ``files``.
    """
    schema = arrow_schema("rejected")
    with (lake.store.writer(table_file(lake, "rejected", name, version)) as file,
          pq.ParquetWriter(file, schema, compression="zstd") as writer):
        writer.write_table(schema.empty_table())  # a table without rows still has its columns
        for part in parts:
            with files.open(part) as content, pq.ParquetFile(content) as rejected:
                for batch in rejected.iter_batches():
                    writer.write_batch(batch)


def publish_dataset_row(manifest: Manifest, lake: Lake) -> None:
    """The version's row in table ``datasets``, once however often this is called.

    Raises:
        StorageError: the table cannot be written.
    """
    store, folder = lake.store, lake.dataset(manifest.name, manifest.version)
    key, published_facts = table_file(lake, "datasets", manifest.name, manifest.version), store.facts(f"{folder}/{MANIFEST_NAME}")
    if store.facts(key) is not None or published_facts is None:
        return
    shards = [shard for shards in manifest.splits.values() for shard in shards]
    counts = manifest.counts
    row = {
        "dataset_name": manifest.name, "dataset_version": manifest.version,
        "created": datetime.fromtimestamp(published_facts.modified_s, UTC),
        "task": manifest.task.name, "unit": manifest.task.unit,
        **{f"{split}_rows": manifest.rows(split) for split in SPLITS},
        **{f"{split}_units": manifest.units.get(split, 0) for split in SPLITS},
        "input_records": counts["input_records"],
        "rejected_records": sum(count for name, count in counts.items() if name.startswith("rejected_")),
        "shards": len(shards), "bytes": sum(shard.bytes for shard in shards), "sizes": list(manifest.task.sizes.items()),
        "baselines": [(baseline.name, baseline.loss) for baseline in manifest.baselines],
        "input_fingerprint": manifest.input_fingerprint, "recipe_hash": manifest.recipe_hash, "path": store.place(folder)}
    with store.writer(key) as file:
        pq.write_table(pa.Table.from_pylist([row], schema=arrow_schema("datasets")), file)
