"""The tokenizer of a dataset, learned from a bounded part of its text, and the encoder that runs it.

Runs on: driver; the characters of all documents are gathered by executors.
Takes:   the inputs as pieces, and as ``documents``, for which Spark is waited for where they are needed.
Gives:   ``tokenizer.json`` and the kind of the fastest encoder that gives its ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.functions import lit

from pipelines.config.datasets import TextPrepare
from pipelines.lake.manifest import TOKENIZER_NAME
from pipelines.lake.store import Store
from pipelines.prepare.text.encoders import EncoderKind, choose_encoder
from pipelines.prepare.text.local_copies import Inputs
from pipelines.prepare.text.local_documents import read_piece
from pipelines.prepare.text.tokenizer import bytes_tokenizer, characters_tokenizer, given_tokenizer, train_bpe

CHECK_BYTES = 1024**2  # text on which the fast encoder is compared with Hugging Face tokenizers


def make_tokenizer(documents: Callable[[], DataFrame], prepare: TextPrepare, inputs: Inputs, files: Store,
                    report: Callable[[str], None]) -> EncoderKind:
    """Saves ``tokenizer.json`` and chooses what encodes with it."""
    setting = prepare.tokenizer
    preferred: EncoderKind = "tiktoken" if setting.kind == "bpe" else setting.kind
    trained = setting.kind == "bpe" and setting.path is None
    sample = _sample(documents, prepare, inputs, setting.sample_bytes if trained else CHECK_BYTES)
    if setting.path is not None:
        tokenizer, preferred = given_tokenizer(setting.path), "tiktoken"
    elif setting.kind == "bpe":
        tokenizer = train_bpe((content.decode() for content in sample), setting.vocabulary_size)
    elif setting.kind == "characters":
        tokenizer = characters_tokenizer(_alphabet(documents()))
    else:
        tokenizer = bytes_tokenizer()
    saved = tokenizer.to_str(pretty=True).encode()
    files.put(TOKENIZER_NAME, saved)
    encoder, reason = choose_encoder(preferred, saved, _take(iter(sample), CHECK_BYTES))
    if reason:
        report(f"prepare: encoding with tokenizers, which is slower: {reason}")
    return encoder


def _sample(documents: Callable[[], DataFrame], prepare: TextPrepare, inputs: Inputs, limit: int) -> list[bytes]:
    """Documents of about ``limit`` bytes together, the same ones for the same input, from all over it."""
    local_limit = limit * (inputs.bytes - inputs.remote_bytes) // max(inputs.bytes, 1)
    pieces = sorted(inputs.pieces, key=lambda piece: hashlib.sha256(
        f"{piece.file.input_index}/{piece.file.name}:{piece.start}".encode("utf-8", "replace")).digest())
    local = (record.content for piece in pieces for record in read_piece(piece, prepare) if record.content is not None)
    sample = _take(local, local_limit)
    if inputs.remote_bytes:
        share = min(1.0, 2.0 * limit / inputs.bytes)
        chosen = documents().where(documents().content.isNotNull()).select("key", "content")
        if share < 1.0:
            below = chosen.where(chosen.key < lit(bytearray(int(share * 2**64).to_bytes(8, "big"))))
            chosen = below if below.head(1) else chosen.orderBy("key").limit(1)
        by_key = groupby(chosen.orderBy("key").toLocalIterator(), key=lambda row: row.key)
        sample += _take((bytes(next(copies).content) for _, copies in by_key), limit - local_limit)
    return sample


def _take(contents: Iterator[bytes], limit: int) -> list[bytes]:
    """The first contents, of ``limit`` bytes together; the last one is cut."""
    taken: list[bytes] = []
    while limit > 0 and (content := next(contents, None)) is not None:
        taken.append(content if len(content) <= limit else content[:limit].decode("utf-8", "ignore").encode())
        limit -= len(content)
    return taken


def _alphabet(documents: DataFrame) -> str:
    """Every character of every document."""
    def characters(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found: set[str] = set()
        for batch in batches:
            for content in batch.column(0).to_pylist():
                found.update(content.decode())
        yield pa.RecordBatch.from_pydict({"characters": ["".join(sorted(found))]})

    contents = documents.where(documents.content.isNotNull()).select("content")
    rows = contents.mapInArrow(characters, "characters STRING").collect()
    return "".join(sorted({char for row in rows for char in row.characters}))
