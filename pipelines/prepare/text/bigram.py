"""The bigram baseline: what a model reaches that knows one token back, and how often each token followed it.

Runs on: driver.
Takes:   the written shards, and how often each token is in the train split.
Gives:   ``Bigram``: a validation loss, and from how many tokens it was taken.

The pairs of a vocabulary are its square, and a lake's tokens are too many to read twice. So rows are taken that lie evenly
spread over the shards, ``SAMPLE_TOKENS`` at most, and in the train rows only those pairs are counted that the validation
rows ask for: memory for the latter, whatever the vocabulary. Which rows follows from the files alone, so the same input
gives the same figure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pipelines.lake.store import Store

SAMPLE_TOKENS = {"train": 3 * 1024**2, "validation": 256 * 1024}
SAMPLE_SHARDS = 32  # of a split: each is one file to open
WEIGHTS = tuple(4.0**power for power in range(9))  # 1 to 65,536 tokens


class Bigram(NamedTuple):
    """``loss`` in nats per token of the validation rows read."""

    loss: float
    train_tokens: int
    validation_tokens: int


def bigram_baseline(files: Store, train: list[str], validation: list[str], train_counts_V: np.ndarray,
                    sequence_length: int) -> Bigram:
    """Counts pairs in a sample of the train rows, and predicts a sample of the validation rows with them.

    Args:
        train, validation: the splits' shards in ``files``, each with at least one row.
        train_counts_V: how often each token is predicted in the whole train split.
    """
    size = len(train_counts_V)
    asked = [before * size + token for before, token in sampled_pairs(files, validation, SAMPLE_TOKENS["validation"],
                                                                      sequence_length)]
    pairs_Q, times_Q = np.unique(np.concatenate(asked), return_counts=True)
    place_of, seen_Q, followed_V = pd.Index(pairs_Q), np.zeros(len(pairs_Q)), np.zeros(size)
    for before, token in sampled_pairs(files, train, SAMPLE_TOKENS["train"], sequence_length):
        places = place_of.get_indexer(before * size + token)
        seen_Q += np.bincount(places[places >= 0], minlength=len(pairs_Q))
        followed_V += np.bincount(before, minlength=size)
    unigram_V = (train_counts_V + 1.0) / (train_counts_V.sum() + size)
    before_Q, token_Q = np.divmod(pairs_Q, size)
    return Bigram(bigram_loss(times_Q, seen_Q, followed_V[before_Q], unigram_V[token_Q]),
                  int(followed_V.sum()), int(times_Q.sum()))


def bigram_loss(times_Q: np.ndarray, seen_Q: np.ndarray, followed_Q: np.ndarray, unigram_Q: np.ndarray) -> float:
    """Nats per token of a bigram model that leans on token frequencies where it has seen little.

    The probability of token b after token a is ``(c(a, b) + w p(b)) / (c(a) + w)``: as if a had been followed by w more
    tokens of usual frequency. Of WEIGHTS the w is taken that does best, one for all tokens. Source: MacKay and Peto 1995,
    "A hierarchical Dirichlet language model".

    Args:
        times_Q, seen_Q: of each pair (a, b) that is asked for, how often it is asked for, and how often it was seen.
        followed_Q, unigram_Q: how often its a was seen with any token behind it; the frequency of its b.
    """
    return min(float(-(times_Q * np.log((seen_Q + weight * unigram_Q) / (followed_Q + weight))).sum() / times_Q.sum())
               for weight in WEIGHTS)


def sampled_pairs(files: Store, shards: list[str], max_tokens: int,
                  sequence_length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(token before, predicted token) of rows spread evenly over at most SAMPLE_SHARDS shards; at least one row of each.

    A shard gives the first rows of some of its row groups.
    """
    picked = [shards[i] for i in _spread(len(shards), SAMPLE_SHARDS)]
    max_rows = max(1, max_tokens // len(picked) // sequence_length)
    for key in picked:
        with files.open(key) as opened, pq.ParquetFile(opened) as file:
            groups = _spread(file.num_row_groups, max(1, max_rows * file.num_row_groups // file.metadata.num_rows))
            for group in groups:
                rows = file.read_row_group(group).slice(0, max(1, max_rows // len(groups)))
                tokens_RT = rows["tokens"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1).astype(np.int64)
                counted_RT = np.arange(sequence_length) + 1 < rows["length"].to_numpy()[:, None]
                yield tokens_RT[:, :-1][counted_RT], tokens_RT[:, 1:][counted_RT]


def _spread(count: int, at_most: int) -> list[int]:
    """Up to ``at_most`` of ``count`` places, from the first on, evenly apart."""
    return sorted({int(place) for place in np.linspace(0, count, min(count, at_most), endpoint=False)})
