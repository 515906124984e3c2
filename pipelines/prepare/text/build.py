"""Fills a staging folder with a whole dataset.

Runs on: driver (plans, collects bounded facts), executors (read, shuffle, pack).
Takes:   the listed inputs and a staging folder that every machine sees.
Gives:   shards, tokenizer.json and manifest.json in it; the table ``rejected``.

The flow is one Spark job with one shuffle: read -> by content hash into partitions -> sort -> drop duplicates, split,
encode, pack, write. How many partitions there are follows from the bytes of the input alone, so that the same input
gives the same files on any cluster.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from pipelines.config.recipe import Prepare, Recipe
from pipelines.errors import DataError, SparkringError, StorageError
from pipelines.lake.manifest import TOKENIZER_NAME, Baseline, Manifest, Shard, file_sha256, row_group_runs
from pipelines.lake.paths import Lake
from pipelines.lake.store import storage_errors
from pipelines.prepare.input_records import REASONS
from pipelines.prepare.inputs import is_url
from pipelines.prepare.local_copies import COPIES, compressed, with_copies
from pipelines.prepare.local_files import local_documents
from pipelines.prepare.publish import publish_rejected
from pipelines.prepare.remote import java_cause, refuse_changed, remote_documents, unreadable, with_lost_lines
from pipelines.prepare.text.bigram import bigram_baseline
from pipelines.prepare.text.encoders import EncoderKind
from pipelines.prepare.text.language_rows import language_facts
from pipelines.prepare.text.learning import Inputs, make_tokenizer
from pipelines.prepare.text.packing import unigram_loss
from pipelines.prepare.text.partition import OUTCOME_DDL, SPLITS, PackSettings, pack_partition
from pipelines.prepare.text.tokenizer import end_of_text_id, given_tokenizer, vocabulary_size
from pipelines.prepare.threads import in_threads

SMALL_PARTITION_BYTES, SMALL_PARTITIONS = 2 * 1024**2, 8  # inputs below 8 shards still use several cores
MANY_REJECTED = 0.05  # of all records: worth a line of its own
ARROW_BATCH = {"spark.sql.execution.arrow.maxRecordsPerBatch": "2048",
               "spark.sql.execution.arrow.maxBytesPerBatch": str(32 * 1024**2)}


class Identity(NamedTuple):
    """What the dataset is called, and why."""

    version: str
    fingerprint: str
    recipe_hash: str


def build_dataset(session: Callable[[], SparkSession], recipe: Recipe, lake: Lake, inputs: Inputs, identity: Identity,
                  staging: Path, report: Callable[[str], None]) -> Manifest:
    """Writes everything into ``staging``; publishes only the table ``rejected``.

    The tokenizer of local text is made before ``session`` is asked for: Spark may still be starting.

    Raises:
        DataError: unreadable input, no document left, a split without a row.
        StorageError: disk full, read-only.
    """
    prepare, remote = recipe.prepare, inputs.remote
    with _spark_errors(prepare):
        if remote.long_files and (files := compressed(session(), remote.long_files)):
            inputs = with_copies(session(), inputs, files, prepare, staging)
        outcomes, settings, seconds = _packed(session, recipe, inputs, identity, staging, report)
        if files := with_lost_lines(prepare, inputs.remote, _read_bytes(outcomes)):
            report(f"prepare: {', '.join(file.url for file in files)}: holds a record that is too long for "
                   "Spark's reader; copied and read again")
            inputs = with_copies(session(), inputs, files, prepare, staging)
            outcomes, settings, seconds = _packed(session, recipe, inputs, identity, staging, report)
        refuse_changed(session(), prepare, remote)
        if files := with_lost_lines(prepare, inputs.remote, _read_bytes(outcomes)):
            raise DataError(files[0].place, f"{files[0].url}: Spark read fewer bytes than it holds",
                            "prepare again; where that does not help, give the file as a path")
    outcomes.sort(key=lambda outcome: outcome["partition"])
    with storage_errors(staging):
        manifest = _assemble(outcomes, recipe, lake, settings, identity)
    tokens = sum(manifest.units.values())
    report(f"prepare: {tokens:,} tokens packed in {seconds:.1f} s ({tokens / seconds:,.0f} tokens/s)")
    if warning := rejected_warning(manifest.counts, outcomes, lake):
        report(warning)
    return manifest


def _packed(session: Callable[[], SparkSession], recipe: Recipe, inputs: Inputs, identity: Identity, staging: Path,
            report: Callable[[str], None]) -> tuple[list[dict[str, Any]], PackSettings, float]:
    """All partitions written: their outcomes, what they were packed by, and the seconds that packing took."""
    prepare, started = recipe.prepare, time.monotonic()
    with ExitStack() as spark_settings:
        @cache
        def documents() -> DataFrame:
            spark_settings.enter_context(_arrow_batches(session()))
            return _documents(session(), prepare, inputs, staging)

        tokenizer_path = staging / TOKENIZER_NAME
        encoder = make_tokenizer(documents, prepare, inputs, tokenizer_path, report)
        settings = _pack_settings(recipe, identity, staging, encoder)
        report(f"prepare: tokenizer ready after {time.monotonic() - started:.1f} s "
               f"({settings.vocabulary_size:,} tokens, encoded by {encoder})")
        packing = time.monotonic()
        partitions = num_partitions(inputs.bytes, prepare.shard_text_bytes)
        packed = (documents().repartition(partitions, "key").sortWithinPartitions("key", "source", "position")
                  .mapInArrow(lambda batches: pack_partition(iter(batches), settings), OUTCOME_DDL))
        outcomes = [json.loads(row.outcome) for row in packed.collect()]
    _raise_faults(outcomes)
    return outcomes, settings, time.monotonic() - packing


def _read_bytes(outcomes: list[dict[str, Any]]) -> Counter[str]:
    """The bytes that Spark's text source gave, by ``read_key``."""
    return sum((Counter(outcome["read_bytes"]) for outcome in outcomes), Counter())


def num_partitions(input_bytes: int, shard_text_bytes: int) -> int:
    """Partitions, and so shards of a split at most; depends on the data only, never on the cluster."""
    small = min(SMALL_PARTITIONS, input_bytes // SMALL_PARTITION_BYTES)
    return max(1, small, math.ceil(input_bytes / shard_text_bytes))


def _documents(spark: SparkSession, prepare: Prepare, inputs: Inputs, staging: Path) -> DataFrame:
    """All inputs as one DataFrame."""
    sources = remote_documents(spark, prepare, inputs.remote)
    if inputs.pieces:
        sources.append(local_documents(spark, inputs.pieces, prepare, staging))
    if not sources:
        raise DataError("prepare.inputs", "the files hold no record", "give files that do")
    documents = sources[0]
    for more in sources[1:]:
        documents = documents.union(more)
    return documents


def _pack_settings(recipe: Recipe, identity: Identity, staging: Path, encoder: EncoderKind) -> PackSettings:
    path, prepare = staging / TOKENIZER_NAME, recipe.prepare
    tokenizer = given_tokenizer(str(path))
    return PackSettings(
        staging=str(staging), dataset_name=recipe.name, dataset_version=identity.version, encoder=encoder,
        tokenizer_path=str(path), tokenizer_sha256=file_sha256(path), vocabulary_size=vocabulary_size(tokenizer),
        end_of_text_id=end_of_text_id(tokenizer), sequence_length=prepare.sequence_length,
        rows_per_row_group=prepare.rows_per_row_group, split_kind=prepare.split.kind,
        validation_fraction=prepare.split.validation_fraction, deduplicate=prepare.deduplicate)


def _raise_faults(outcomes: list[dict[str, Any]]) -> None:
    for fault in (outcome["fault"] for outcome in outcomes if "fault" in outcome):
        if fault["kind"] == "data":
            raise DataError(fault["place"], fault["problem"], "restore it or move it out of the input")
        raise StorageError(fault["place"], f"cannot be written: {fault['problem']}",
                           "free space, fix permissions, or set storage.root to another folder")


def _assemble(outcomes: list[dict[str, Any]], recipe: Recipe, lake: Lake, settings: PackSettings,
              identity: Identity) -> Manifest:
    """Gives the shards their names, adds up the facts and writes the manifest."""
    staging, counts = Path(settings.staging), Counter({f"rejected_{reason}": 0 for reason in REASONS})
    for outcome in outcomes:
        counts.update(outcome["counts"])
    parts = [staging / outcome["attempt"] / "rejected.parquet" for outcome in outcomes]
    publish_rejected([part for part in parts if part.exists()], lake, recipe.name, identity.version)
    splits, tokens_V = {}, {}
    for split in SPLITS:
        splits[split], tokens_V[split] = _name_shards(outcomes, split, settings)
    tokens = {split: int(tokens_V[split].sum()) for split in SPLITS}
    _check_splits(tokens, counts, recipe, lake)
    for folder in (*staging.glob("attempt-*"), staging / "pieces", staging / COPIES):
        shutil.rmtree(folder, ignore_errors=True)
    train, validation = ([staging / shard.path for shard in splits[split]] for split in SPLITS)
    bigram = bigram_baseline(train, validation, tokens_V["train"], settings.sequence_length)
    manifest = Manifest(
        name=recipe.name, version=identity.version, input_fingerprint=identity.fingerprint, recipe_hash=identity.recipe_hash,
        task=language_facts(sequence_length=settings.sequence_length, vocabulary_size=settings.vocabulary_size,
                            end_of_text_id=settings.end_of_text_id, tokenizer_sha256=settings.tokenizer_sha256),
        splits=splits, units=tokens, counts=dict(sorted(counts.items())), baselines=(
            Baseline("guessing", math.log(settings.vocabulary_size)),
            Baseline("token frequencies", unigram_loss(tokens_V["train"], tokens_V["validation"])),
            Baseline("a bigram model", bigram.loss, f"which token follows which; counted on {bigram.train_tokens:,} of "
                     f"{tokens['train']:,} train tokens, asked for {bigram.validation_tokens:,} validation tokens")),
        source={"inputs": [source.model_dump(mode="json") for source in recipe.prepare.inputs]})
    manifest.save(staging)
    return manifest


def rejected_warning(counts: dict[str, int], outcomes: list[dict[str, Any]], lake: Lake) -> str | None:
    """One line where more than ``MANY_REJECTED`` of the records are refused: how many, mostly why, and an example."""
    records = counts["input_records"]
    rejected = records - counts["documents"]
    if rejected <= MANY_REJECTED * records:
        return None
    by_reason = {reason: counts[f"rejected_{reason}"] for reason in REASONS}
    reason = max(by_reason, key=by_reason.__getitem__)
    examples = (outcome["examples"].get(reason) for outcome in outcomes)
    source, position, detail = next(example for example in examples if example is not None)
    return (f"prepare: {rejected:,} of {records:,} records ({rejected / records:.0%}) were rejected, {by_reason[reason]:,} "
            f"of them as {reason}, for example {source!r} at {position} ({detail!r}); "
            f"see the table {lake.store.place(lake.table('rejected'))}")


def _name_shards(outcomes: list[dict[str, Any]], split: str,
                 settings: PackSettings) -> tuple[tuple[Shard, ...], np.ndarray]:
    """Moves a split's shards to their place; how often each token is predicted."""
    staging = Path(settings.staging)
    made = [(outcome["attempt"], facts) for outcome in outcomes if (facts := outcome["shards"][split]) is not None]
    shards = tuple(Shard(f"{split}-{number:05d}.parquet", row_group_runs(facts["row_groups"]), facts["bytes"], facts["sha256"])
                   for number, (_, facts) in enumerate(made))

    def move(attempt_and_shard: tuple[str, Shard]) -> np.ndarray:
        attempt, shard = attempt_and_shard
        written = staging / attempt / f"{split}.parquet"
        written.rename(staging / shard.path)
        return np.load(written.with_suffix(".npy"), allow_pickle=False)

    tokens_V = np.zeros(settings.vocabulary_size, dtype=np.int64)
    for counts_V in in_threads(move, [(attempt, shard) for (attempt, _), shard in zip(made, shards, strict=True)]):
        tokens_V += counts_V
    return shards, tokens_V


def _check_splits(tokens: dict[str, int], counts: Counter[str], recipe: Recipe, lake: Lake) -> None:
    """Both splits must hold a row."""
    refused = {reason: counts[f"rejected_{reason}"] for reason in REASONS}
    if not counts["documents"]:
        why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(refused.items()) if count)
        raise DataError("prepare.inputs", f"no document is left: of {counts['input_records']:,} records " +
                        (f"all were rejected ({why})" if why else "there is none"),
                        f"see the table {lake.store.place(lake.table('rejected'))}, and check format, column and delimiter")
    for split in SPLITS:
        if not tokens[split]:
            raise DataError("prepare.split", f"the {split} split is empty: {counts['documents']:,} documents and "
                            f"validation_fraction {recipe.prepare.split.validation_fraction}",
                            "give more documents, change prepare.split.validation_fraction, or set "
                            "prepare.split.kind: position")


@contextmanager
def _arrow_batches(spark: SparkSession) -> Iterator[None]:
    """Bounds what a Python worker holds at once; the session's own settings come back afterwards."""
    before = {key: spark.conf.get(key, None) for key in ARROW_BATCH}
    try:
        for key, value in ARROW_BATCH.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)


@contextmanager
def _spark_errors(prepare: Prepare) -> Iterator[None]:
    """A failed Spark job without its Java stack trace."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if "No space left on device" in str(error):
            raise StorageError("spark.local.dir", "is full", "free space, or set it to another folder") from None
        urls = ", ".join(source.path for source in prepare.inputs if is_url(source.path))
        if urls and "PythonException" not in str(error):
            raise unreadable("prepare.inputs", urls, error) from None
        raise SparkringError("prepare", f"the Spark job failed: {java_cause(error)}", "see Spark's own log") from error
