"""Fast encoders that give the very ids that ``tokenizer.json`` gives.

Runs on: executors (encode), driver (chooses).
Takes:   a ``tokenizer.json`` and UTF-8 documents.
Gives:   int32 token ids, or None for a document that the tokenizer cannot represent.

Text that looks like a special token is plain text to all of them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import tiktoken
from tokenizers import Tokenizer

from pipelines.lake.manifest import TOKENIZER_NAME
from pipelines.lake.staging import Staging
from pipelines.prepare.text.tokenizer import END_OF_TEXT, byte_characters

EncoderKind = Literal["bytes", "characters", "tiktoken", "tokenizers"]

# What pre_tokenizers.ByteLevel does, in the form without backtracking (a million spaces overflow the other one).
# Source: openai/tiktoken, tiktoken_ext/openai_public.py, r50k_pat_str.
GPT2_WORDS = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


class Encoder(Protocol):
    """Encodes one document."""

    def encode(self, content: bytes) -> np.ndarray | None: ...


class ByteEncoder:
    """One token per byte."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._id_of_byte = np.array([tokenizer.token_to_id(char) for char in byte_characters()], dtype=np.int32)

    def encode(self, content: bytes) -> np.ndarray | None:
        return self._id_of_byte[np.frombuffer(content, dtype=np.uint8)]


class CharacterEncoder:
    """One token per character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocabulary = {ord(char): index for char, index in tokenizer.get_vocab(with_added_tokens=False).items()}
        self._id_of_code = np.full(0x110000, -1, dtype=np.int32)
        self._id_of_code[list(vocabulary)] = list(vocabulary.values())

    def encode(self, content: bytes) -> np.ndarray | None:
        tokens = self._id_of_code[np.frombuffer(content.decode().encode("utf-32-le"), dtype=np.uint32)]
        return None if (tokens < 0).any() else tokens


class TokenizersEncoder:
    """Hugging Face ``tokenizers``: knows every model, and is the measure for the others."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer

    def encode(self, content: bytes) -> np.ndarray | None:
        text = content.decode()
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self._tokenizer.decode(ids, skip_special_tokens=False) != text:
            return None
        return np.array(ids, dtype=np.int32)


class TiktokenEncoder:
    """The same merges in ``tiktoken``, several times as fast."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        settings = tiktoken_settings(json.loads(tokenizer.to_str()))
        if settings is None:
            raise ValueError("not a byte-level BPE that tiktoken can run")
        pattern, ranks = settings
        # Without any special token tiktoken looks for an empty one at every place, at half the speed.
        self._encoding = tiktoken.Encoding("sparkring", pat_str=pattern, mergeable_ranks=ranks,
                                           special_tokens={END_OF_TEXT: max(ranks.values()) + 1})
        self._exact = TokenizersEncoder(tokenizer)

    def encode(self, content: bytes) -> np.ndarray | None:
        try:
            return self._encoding.encode_to_numpy(content.decode(), disallowed_special=()).view(np.int32)
        except ValueError:  # its regular expression ran out of stack
            return self._exact.encode(content)


def tiktoken_settings(saved: dict[str, Any]) -> tuple[str, dict[bytes, int]] | None:
    """The word pattern and the rank of each token, or None where tiktoken cannot run this tokenizer."""
    model, pattern = saved["model"], _word_pattern(saved["pre_tokenizer"])
    if pattern is None or saved["normalizer"] is not None or model["type"] != "BPE" or model.get("dropout"):
        return None
    if any(not token["special"] for token in saved["added_tokens"]):
        return None
    byte_of = {char: byte for byte, char in enumerate(byte_characters())}
    special = {token["content"] for token in saved["added_tokens"]}
    ranks: dict[bytes, int] = {}
    for token, index in model["vocab"].items():
        if token in special:
            continue
        if any(char not in byte_of for char in token):
            return None
        ranks[bytes(byte_of[char] for char in token)] = index
    return (pattern, ranks) if all(bytes([byte]) in ranks for byte in range(256)) else None


def _word_pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The regular expression that cuts text into words, where the pre-tokenizer is byte-level and nothing else."""
    if pre_tokenizer is None:
        return None
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    *before, last = steps
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    if not before:
        return GPT2_WORDS if last["use_regex"] else None
    split = before[0]
    plain = len(before) == 1 and split["type"] == "Split" and not last["use_regex"]
    if plain and split["behavior"] == "Isolated" and not split["invert"] and "Regex" in split["pattern"]:
        return str(split["pattern"]["Regex"])
    return None


ENCODERS: dict[EncoderKind, type[Any]] = {"bytes": ByteEncoder, "characters": CharacterEncoder,
                                          "tiktoken": TiktokenEncoder, "tokenizers": TokenizersEncoder}


@lru_cache(maxsize=4)
def load_encoder(kind: EncoderKind, staging: Staging, sha256: str) -> Encoder:
    """One encoder per process and tokenizer (``sha256``): Spark's Python workers run many tasks."""
    encoder: Encoder = ENCODERS[kind](Tokenizer.from_buffer(staging.files.read(TOKENIZER_NAME)))
    return encoder


def choose_encoder(preferred: EncoderKind, saved: bytes, sample: list[bytes]) -> tuple[EncoderKind, str]:
    """The preferred encoder where it gives the ids of ``tokenizers`` on the sample, else ``tokenizers`` itself.

    Args:
        saved: content of ``tokenizer.json``.
    Returns:
        The kind, and why it is not the preferred one (empty where it is).
    """
    exact = TokenizersEncoder(Tokenizer.from_buffer(saved))
    try:
        fast: Encoder = ENCODERS[preferred](Tokenizer.from_buffer(saved))
    except ValueError as error:
        return "tokenizers", str(error)
    for content in sample:
        ours, theirs = fast.encode(content), exact.encode(content)
        same = ours is theirs if ours is None or theirs is None else np.array_equal(ours, theirs)
        if not same:
            return "tokenizers", f"{preferred} and tokenizers differ on a sample"
    return preferred, ""
