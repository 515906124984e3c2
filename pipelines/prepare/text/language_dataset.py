"""A language dataset, whole: the flow of prepare for text, on one screen.

Runs on: driver (plans, collects bounded facts), executors (read, shuffle, pack).
Takes:   the listed inputs, and where the version is made.
Gives:   shards and tokenizer.json in it, and the manifest; the table ``rejected``.

The flow is one Spark job with one shuffle: read -> by content hash into partitions -> sort -> drop duplicates, split,
encode, pack, write. How many partitions there are follows from the bytes of the input alone, so that the same input
gives the same files on any cluster.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from functools import cache

from pyspark.sql import DataFrame

from pipelines.config.datasets import TextPrepare
from pipelines.lake.manifest import Manifest
from pipelines.lake.store import storage_errors
from pipelines.prepare.build_order import BuildOrder
from pipelines.prepare.outcomes import Outcomes, raise_faults, rejected_warning
from pipelines.prepare.spark_job import OUTCOME_DDL, arrow_batches, num_partitions, spark_errors
from pipelines.prepare.text.language_manifest import assemble_dataset, read_bytes
from pipelines.prepare.text.learning import make_tokenizer
from pipelines.prepare.text.local_copies import Inputs
from pipelines.prepare.text.pack_settings import PackSettings, pack_settings
from pipelines.prepare.text.partition import pack_partition
from pipelines.prepare.text.sources import documents_of, readable, refuse_misread, reread


def build_language_dataset(order: BuildOrder, prepare: TextPrepare) -> Manifest:
    """Writes everything that the version is of; publishes only the table ``rejected``.

    The tokenizer of local text is made before the session is asked for: Spark may still be starting.

    Raises:
        DataError: unreadable input, no document left, a split without a row.
        StorageError: disk full, read-only.
    """
    session, staging, report = order.session, order.staging, order.report
    with spark_errors(prepare):
        inputs = readable(session, prepare, order.listing, staging)
        outcomes, settings, seconds = _packed(order, prepare, inputs)
        if again := reread(session, prepare, inputs, read_bytes(outcomes), staging, report):
            inputs = again
            outcomes, settings, seconds = _packed(order, prepare, inputs)
        refuse_misread(session, prepare, order.listing.remote, inputs, read_bytes(outcomes))
    with storage_errors(staging.files.place()):
        manifest = assemble_dataset(outcomes, order, settings)
    tokens = sum(manifest.units.values())
    report(f"prepare: {tokens:,} tokens packed in {seconds:.1f} s ({tokens / seconds:,.0f} tokens/s)")
    if warning := rejected_warning(manifest.counts, outcomes, order.lake):
        report(warning)
    return manifest


def _packed(order: BuildOrder, prepare: TextPrepare, inputs: Inputs) -> tuple[Outcomes, PackSettings, float]:
    """All partitions written: their outcomes, what they were packed by, and the seconds that packing took."""
    session, staging, report = order.session, order.staging, order.report
    started = time.monotonic()
    with ExitStack() as spark_settings:
        @cache
        def documents() -> DataFrame:
            spark_settings.enter_context(arrow_batches(session()))
            return documents_of(session(), prepare, inputs, staging)

        encoder = make_tokenizer(documents, prepare, inputs, staging.files, report)
        settings = pack_settings(order, prepare, encoder)
        report(f"prepare: tokenizer ready after {time.monotonic() - started:.1f} s "
               f"({settings.vocabulary_size:,} tokens, encoded by {encoder})")
        packing = time.monotonic()
        partitions = num_partitions(inputs.bytes, prepare.shard_text_bytes)
        packed = (documents().repartition(partitions, "key").sortWithinPartitions("key", "source", "position")
                  .mapInArrow(lambda batches: pack_partition(iter(batches), settings), OUTCOME_DDL))
        outcomes = [json.loads(row.outcome) for row in packed.collect()]
    raise_faults(outcomes)
    return outcomes, settings, time.monotonic() - packing
