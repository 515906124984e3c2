"""Every token is predicted exactly once, whatever the lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prepare.text.language_dataset import num_partitions
from pipelines.prepare.text.packing import WindowPacker, Windows, predicted_tokens, unigram_loss

END = 0


def pack(texts: list[list[int]], length: int, rows: int) -> list[Windows]:
    packer, windows = WindowPacker(length, END), []
    for text in texts:
        packer.add(np.array(text, dtype=np.int32))
        while packer.full_windows >= rows:
            windows.append(packer.take(rows))
    return [*windows, packer.take(packer.full_windows), packer.take_tail()]


texts_strategy = st.lists(st.lists(st.integers(1, 9), max_size=30), max_size=8)


@given(texts=texts_strategy, length=st.integers(2, 9), rows=st.integers(1, 4))
def test_every_token_is_predicted_once_and_in_order(texts: list[list[int]], length: int, rows: int) -> None:
    predicted = np.concatenate([predicted_tokens(windows) for windows in pack(texts, length, rows)])
    assert predicted.tolist() == [token for text in texts for token in [*text, END]]


@given(texts=texts_strategy, length=st.integers(2, 9), rows=st.integers(1, 4))
def test_a_window_starts_with_the_last_token_of_its_neighbour(texts: list[list[int]], length: int, rows: int) -> None:
    windows = pack(texts, length, rows)
    tokens_RT = np.concatenate([part.tokens_RT for part in windows])
    length_R = np.concatenate([part.length_R for part in windows])
    assert tokens_RT.shape == (len(length_R), length + 1)
    assert (tokens_RT[1:, 0] == tokens_RT[:-1, -1]).all()
    assert (length_R[:-1] == length + 1).all() and ((length_R >= 2) & (length_R <= length + 1)).all()
    assert all((row[real:] == END).all() for row, real in zip(tokens_RT, length_R, strict=True))


def test_a_long_document_is_copied_once_whatever_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []

    def counting(parts: list[np.ndarray]) -> np.ndarray:
        whole = concatenate(parts)
        copied.append(len(whole))
        return whole

    concatenate = np.concatenate
    monkeypatch.setattr(np, "concatenate", counting)
    packer, document = WindowPacker(256, END), np.ones(4 * 1024**2, dtype=np.int32)
    packer.add(document)
    while packer.full_windows >= 512:
        packer.take(512)
    assert len(document) * 0.9 < sum(copied) < len(document) * 1.1


def test_an_empty_stream_has_no_window() -> None:
    assert all(len(windows.length_R) == 0 for windows in pack([], 4, 2))


def test_the_unigram_loss_of_uniform_tokens_is_the_uniform_loss() -> None:
    assert abs(unigram_loss(np.full(7, 1000), np.full(7, 3)) - np.log(7)) < 1e-9


@given(size=st.integers(0, 2**44), shard=st.integers(1024**2, 2**30))
def test_partitions_grow_with_the_data_and_make_no_small_files(size: int, shard: int) -> None:
    partitions = num_partitions(size, shard)
    assert partitions >= size / shard
    assert partitions <= max(1, 8, size // shard + 1)
    assert partitions == 1 or size / partitions >= 1024**2 or size / partitions > shard / 2
