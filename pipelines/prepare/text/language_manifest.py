"""What all partitions came to, as one dataset: faults raised, shards named, facts added up, the manifest.

Runs on: driver.
Takes:   the outcome of each partition (``partition.py``), and the staging that they wrote to.
Gives:   ``assemble_dataset``: the manifest; what was refused is published in table ``rejected``.
"""

from __future__ import annotations

import io
import math
from collections import Counter

import numpy as np

from pipelines.errors import DataError
from pipelines.lake.manifest import TOKENIZER_NAME, Baseline, Manifest, Shard
from pipelines.prepare.build_order import BuildOrder
from pipelines.prepare.outcomes import Outcomes
from pipelines.prepare.publish import publish_rejected
from pipelines.prepare.shard_files import named_shards, rejected_parts
from pipelines.prepare.text.bigram import bigram_baseline
from pipelines.prepare.text.input_records import REASONS
from pipelines.prepare.text.language_rows import language_facts
from pipelines.prepare.text.pack_settings import PackSettings
from pipelines.prepare.text.packing import unigram_loss


def read_bytes(outcomes: Outcomes) -> Counter[str]:
    """The bytes that Spark's text source gave, by ``remote_documents.read_key``."""
    return sum((Counter(outcome["read_bytes"]) for outcome in outcomes), Counter())


def assemble_dataset(outcomes: Outcomes, order: BuildOrder, settings: PackSettings) -> Manifest:
    """
    Raises:
        DataError: no document is left, or a split has no row.
    """
    recipe, identity = order.recipe, order.identity
    outcomes = sorted(outcomes, key=lambda outcome: outcome["partition"])
    staging, counts = order.staging, Counter({f"rejected_{reason}": 0 for reason in REASONS})
    for outcome in outcomes:
        counts.update(outcome["counts"])
    publish_rejected(rejected_parts(outcomes), staging.files, order.lake, recipe.name, identity.version)
    splits, tokens_V = {}, {}
    for split in settings.splits:
        splits[split], tokens_V[split] = _name_shards(outcomes, split, settings)
    tokens = {split: int(tokens_V[split].sum()) for split in settings.splits}
    _check_splits(tokens, counts, order, settings)
    staging.sweep({TOKENIZER_NAME, *(shard.path for shards in splits.values() for shard in shards)})
    train, validation = ([shard.path for shard in splits[split]] for split in ("train", "validation"))
    bigram = bigram_baseline(staging.files, train, validation, tokens_V["train"], settings.sequence_length)
    token_bytes = {split: counts.pop(f"{split}_text_bytes", 0) / tokens[split] for split in tokens if tokens[split]}
    return Manifest(
        name=recipe.name, version=identity.version, input_fingerprint=identity.fingerprint, recipe_hash=identity.recipe_hash,
        task=language_facts(sequence_length=settings.sequence_length, vocabulary_size=settings.vocabulary_size,
                            end_of_text_id=settings.end_of_text_id, tokenizer_sha256=settings.tokenizer_sha256,
                            token_bytes=token_bytes, max_document_bytes=settings.max_document_bytes),
        splits=splits, units=tokens, counts=dict(sorted(counts.items())), baselines=(
            Baseline("guessing", math.log(settings.vocabulary_size)),
            Baseline("token frequencies", unigram_loss(tokens_V["train"], tokens_V["validation"])),
            Baseline("a bigram model", bigram.loss, f"which token follows which; counted on {bigram.train_tokens:,} of "
                     f"{tokens['train']:,} train tokens, asked for {bigram.validation_tokens:,} validation tokens")),
        source={"inputs": [source.model_dump(mode="json") for source in recipe.prepare.inputs]})


def _name_shards(outcomes: Outcomes, split: str,
                 settings: PackSettings) -> tuple[tuple[Shard, ...], np.ndarray]:
    """Moves a split's shards to their place; how often each token is predicted."""
    shards, counts = named_shards(outcomes, split, settings.staging,
                                  lambda written: np.load(io.BytesIO(settings.staging.files.read(f"{written}.npy")),
                                                          allow_pickle=False))
    return shards, sum(counts, np.zeros(settings.vocabulary_size, dtype=np.int64))


def _check_splits(tokens: dict[str, int], counts: Counter[str], order: BuildOrder, settings: PackSettings) -> None:
    """Each split must hold a row."""
    refused = {reason: counts[f"rejected_{reason}"] for reason in REASONS}
    if not counts["documents"]:
        why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(refused.items()) if count)
        raise DataError("prepare.inputs", f"no document is left: of {counts['input_records']:,} records " +
                        (f"all were rejected ({why})" if why else "there is none"),
                        f"see the table {order.lake.store.place(order.lake.table('rejected'))}, and check format, column and "
                        "delimiter")
    for split in tokens:
        if not tokens[split]:
            raise DataError("prepare.split", f"the {split} split is empty: {counts['documents']:,} documents, "
                            f"validation_fraction {settings.validation_fraction} and test_fraction "
                            f"{settings.test_fraction}",
                            "give more documents, change the fractions of prepare.split, or set "
                            "prepare.split.kind: position")
