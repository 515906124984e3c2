"""Token streams become rows: windows that share one token with their neighbour.

Runs on: executors (pure arithmetic, numpy only).
Takes:   the token ids of one text after another.
Gives:   windows of ``sequence_length + 1`` tokens and their true lengths.

The stream is ``end, text 1, end, text 2, end, ...`` (``end`` = end-of-text). Window i holds the stream's tokens
``i * L`` to ``i * L + L``, so that every token after the first ``end`` is predicted exactly once, and none is lost.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """Rows of a shard."""

    tokens_RT: np.ndarray
    length_R: np.ndarray


class WindowPacker:
    """Cuts one stream of tokens into windows; copies each token once, however long a text is."""

    def __init__(self, sequence_length: int, end_of_text_id: int) -> None:
        self._length, self._end = sequence_length, np.array([end_of_text_id], dtype=np.int32)
        self._waiting: deque[np.ndarray] = deque([self._end])
        self.waiting_tokens = 1

    def add(self, tokens: np.ndarray) -> None:
        """Appends a text's tokens and the end-of-text behind it."""
        self._waiting += [tokens, self._end]
        self.waiting_tokens += len(tokens) + 1

    @property
    def full_windows(self) -> int:
        return (self.waiting_tokens - 1) // self._length

    def take(self, rows: int) -> Windows:
        """The next ``rows`` windows, all full; at most ``full_windows``."""
        predicted = rows * self._length
        stream = self._front(predicted + 1)
        tokens_RT = np.empty((rows, self._length + 1), dtype=np.int32)
        tokens_RT[:, :-1] = stream[:predicted].reshape(rows, self._length)
        tokens_RT[:, -1] = stream[self._length::self._length]
        self._drop(predicted)
        return Windows(tokens_RT, np.full(rows, self._length + 1, dtype=np.int32))

    def take_tail(self) -> Windows:
        """What is left after the last full window: one row, or none. Ends the stream."""
        stream = self._front(self.waiting_tokens)
        rows = 1 if len(stream) > 1 else 0  # a lone token was predicted by the window before
        tokens_RT = np.full((rows, self._length + 1), self._end[0], dtype=np.int32)
        if rows:
            tokens_RT[0, :len(stream)] = stream
        self._drop(len(stream))
        return Windows(tokens_RT, np.full(rows, len(stream), dtype=np.int32))

    def _front(self, count: int) -> np.ndarray:
        """A copy of the next ``count`` tokens."""
        parts, missing = [self._end[:0]], count
        for part in self._waiting:
            if missing <= 0:
                break
            parts.append(part[:missing])
            missing -= len(part)
        return np.concatenate(parts)

    def _drop(self, count: int) -> None:
        """Forgets the next ``count`` tokens."""
        self.waiting_tokens -= count
        while count > 0:
            part = self._waiting.popleft()
            if len(part) > count:
                self._waiting.appendleft(part[count:])
            count -= len(part)


def predicted_tokens(windows: Windows) -> np.ndarray:
    """The tokens that a loss counts, flat: all but each row's first, up to its length."""
    columns = np.arange(1, windows.tokens_RT.shape[1])
    if len(windows.length_R) and windows.length_R.min() == windows.tokens_RT.shape[1]:
        return windows.tokens_RT[:, 1:].ravel()
    return windows.tokens_RT[:, 1:][columns[None, :] < windows.length_R[:, None]]


def unigram_loss(train_counts_V: np.ndarray, validation_counts_V: np.ndarray) -> float:
    """Nats per token of a model that knows only how often each token is (add-one smoothed)."""
    probabilities_V = (train_counts_V + 1.0) / (train_counts_V.sum() + len(train_counts_V))
    return float(-(validation_counts_V * np.log(probabilities_V)).sum() / validation_counts_V.sum())
