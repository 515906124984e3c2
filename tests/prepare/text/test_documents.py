"""Copies of a document travel without its content, and what becomes of them does not depend on the cluster."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.lake.staging import FolderStaging
from pipelines.lake.store import FolderStore, file_sha256
from pipelines.prepare.text import documents
from pipelines.prepare.text.documents import MIN_COPY_BYTES, Copies, record_batches
from pipelines.prepare.text.input_records import Record, text_record
from pipelines.prepare.text.pack_settings import PackSettings
from pipelines.prepare.text.partition import PartitionPacker
from pipelines.prepare.text.tokenizer import bytes_tokenizer

CONTENTS = [b"a" * 400, b"b" * 400, "\u00fcber ".encode() * 100, b"short", b"short too", b"\xff" * 300]


def rows_of(tasks: list[list[Record]], *, deduplicate: bool) -> list[tuple[Any, ...]]:
    """What a partition gets: the rows of all tasks, sorted as Spark sorts them."""
    batches = [batch for task in tasks for batch in record_batches(iter(task), deduplicate=deduplicate)]
    rows = [tuple(row.values()) for row in pa.Table.from_batches(batches).to_pylist()] if batches else []
    return sorted(rows, key=lambda row: (row[0], row[1].encode(), row[2]))


def packed(rows: list[tuple[Any, ...]]) -> tuple[dict[str, Any], list[dict[str, Any]], bytes]:
    """Counts, refused rows and the shard of a partition."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        bytes_tokenizer().save(str(folder / "tokenizer.json"))
        packer = PartitionPacker(PackSettings(
            FolderStaging(FolderStore(folder)), "set", "v", "bytes", file_sha256(folder / "tokenizer.json"), 257, 256,
            16, 8, "hash", 0.0, 0.0, True, 10**6), folder)
        for row in rows:
            packer.add(*row)
        outcome = packer.finish()
        refused = pq.read_table(folder / "rejected.parquet").to_pylist() if (folder / "rejected.parquet").exists() else []
        shard = (folder / "train.parquet").read_bytes() if (folder / "train.parquet").exists() else b""
        return outcome["counts"], refused, shard


@settings(max_examples=60, deadline=None)
@given(read=st.lists(st.tuples(st.sampled_from(CONTENTS), st.sampled_from(["a", "b", "Z", "\u00e4"]), st.integers(0, 3)),
                     max_size=30),
       remembered=st.integers(1, 3))
def test_shards_and_refused_rows_are_those_of_copies_sent_whole(
        read: list[tuple[bytes, str, int]], remembered: int) -> None:
    tasks: list[list[Record]] = [[], [], [], []]
    for number, (content, source, task) in enumerate(read):
        tasks[task].append(text_record(source, 100 - number, content, 10_000))
    before = documents.REMEMBERED_KEYS
    documents.REMEMBERED_KEYS = remembered
    try:
        light = rows_of(tasks, deduplicate=True)
    finally:
        documents.REMEMBERED_KEYS = before
    assert packed(light) == packed(rows_of(tasks, deduplicate=False))


def test_a_document_repeated_a_million_times_is_sent_once_by_a_task() -> None:
    content = b"This page has moved. " * 5000
    copies = (text_record("crawl.jsonl", position, content, 10**6) for position in range(10_000))
    sent = list(record_batches(copies, deduplicate=True))
    assert sum(batch.num_rows for batch in sent) == 10_000
    assert sum(batch.nbytes for batch in sent) < len(content) + 10_000 * 120


def test_nothing_is_dropped_where_copies_are_wanted() -> None:
    copies = [text_record("a", position, CONTENTS[0], 10_000) for position in range(5)]
    assert all(row[3] == CONTENTS[0] for row in rows_of([copies], deduplicate=False))


def test_what_a_task_remembers_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(documents, "REMEMBERED_KEYS", 100)
    copies, frequent = Copies(), text_record("a", 0, b"x" * MIN_COPY_BYTES, 10_000)
    for position in range(1000):
        rare = text_record("a", position, b"%d" % position + b"y" * MIN_COPY_BYTES, 10_000)
        assert copies.without_content(b"%d" % position, rare) is rare
        again = copies.without_content(b"frequent", frequent._replace(position=position))
        assert (again.content is None) == (position > 0)
    assert len(copies._first_places) == 100
