"""All encoders give the ids of tokenizer.json, and every text comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from pipelines.errors import DataError
from pipelines.lake.staging import FolderStaging
from pipelines.lake.store import FolderStore
from pipelines.prepare.text.encoders import (
    CharacterEncoder,
    TiktokenEncoder,
    TokenizersEncoder,
    choose_encoder,
    load_encoder,
)
from pipelines.prepare.text.tokenizer import (
    END_OF_TEXT,
    bytes_tokenizer,
    characters_tokenizer,
    end_of_text_id,
    given_tokenizer,
    train_bpe,
    vocabulary_size,
)
from tests.prepare.conftest import make_text

TEXTS = [make_text(seed) for seed in range(20)]
BPE = train_bpe(TEXTS, 300)
TOKENIZERS = {"tiktoken": BPE, "bytes": bytes_tokenizer(),
              "characters": characters_tokenizer("".join(TEXTS) + END_OF_TEXT + "\0\r\t")}


def save(tokenizer: Tokenizer, folder: Path) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_fast_encoder_is_chosen_and_gives_the_same_ids(kind: str, tmp_path: Path) -> None:
    path = save(TOKENIZERS[kind], tmp_path)
    assert choose_encoder(kind, path.read_bytes(), [text.encode() for text in TEXTS]) == (kind, "")
    encoder, plain = load_encoder(kind, FolderStaging(FolderStore(tmp_path)), str(tmp_path)), Tokenizer.from_file(str(path))
    for text in TEXTS:
        tokens = encoder.encode(text.encode())
        assert tokens.dtype == np.int32 and tokens.tolist() == plain.encode(text).ids
        assert plain.decode(tokens.tolist(), skip_special_tokens=False) == text


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_text_that_looks_like_end_of_text_is_plain_text(kind: str, tmp_path: Path) -> None:
    save(TOKENIZERS[kind], tmp_path)
    text = f"a{END_OF_TEXT}a"
    for name in (kind, "tokenizers"):
        tokens = load_encoder(name, FolderStaging(FolderStore(tmp_path)), str(tmp_path)).encode(text.encode()).tolist()
        assert end_of_text_id(TOKENIZERS[kind]) not in tokens
        assert TOKENIZERS[kind].decode(tokens, skip_special_tokens=False) == text


@given(st.text())
def test_any_text_comes_back_from_bpe_with_the_same_ids(text: str) -> None:
    tokens = TiktokenEncoder(BPE).encode(text.encode())
    assert BPE.decode(tokens.tolist(), skip_special_tokens=False) == text
    assert tokens.tolist() == TokenizersEncoder(BPE).encode(text.encode()).tolist()


@pytest.mark.parametrize("text", [" " * 1_000_000 + "x", "\n" * 300_000, "x" * 300_000, "é" * 100_000])
def test_long_runs_do_not_overflow(text: str) -> None:
    tokens = TiktokenEncoder(BPE).encode(text.encode())
    assert BPE.decode(tokens.tolist(), skip_special_tokens=False) == text


def test_a_character_outside_the_vocabulary_is_not_lost_silently() -> None:
    assert CharacterEncoder(characters_tokenizer("abc")).encode(b"abcd") is None


def test_vocabulary_sizes_and_end_of_text() -> None:
    characters = characters_tokenizer("hello")
    assert (vocabulary_size(characters), end_of_text_id(characters), characters.token_to_id("e")) == (5, 4, 0)
    assert (vocabulary_size(bytes_tokenizer()), end_of_text_id(bytes_tokenizer())) == (257, 256)
    assert (vocabulary_size(BPE), end_of_text_id(BPE)) == (300, 0)


def test_a_tokenizer_that_tiktoken_cannot_run_falls_back_and_says_so(tmp_path: Path) -> None:
    lower = Tokenizer(models.WordLevel({"hello": 0, "?": 1}, unk_token="?"))
    lower.normalizer, lower.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    path = save(lower, tmp_path)
    kind, reason = choose_encoder("tiktoken", path.read_bytes(), [b"hello"])
    assert kind == "tokenizers" and reason
    encoder = load_encoder(kind, FolderStaging(FolderStore(tmp_path)), str(tmp_path))
    assert encoder.encode(b"hello").tolist() == [0]
    assert encoder.encode(b"Hello") is None  # it would not come back


def test_a_difference_on_the_sample_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.prepare.text.encoders.GPT2_WORDS", ".")
    assert choose_encoder("tiktoken", save(BPE, tmp_path).read_bytes(), [TEXTS[0].encode()])[0] == "tokenizers"


def test_a_given_tokenizer_gets_an_end_of_text(tmp_path: Path) -> None:
    path = save(Tokenizer(models.WordLevel({"hello": 0}, unk_token="hello")), tmp_path)
    assert end_of_text_id(given_tokenizer(str(path))) == 1


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b'{"model": 3}'])
def test_a_bad_tokenizer_file_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match=r"prepare\.tokenizer\.path"):
        given_tokenizer(str(tmp_path / "tokenizer.json"))
