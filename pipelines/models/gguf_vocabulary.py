"""A byte-level BPE as llama.cpp knows it, where it gives the same ids for every text.

Runs on: driver (no torch).
Takes:   the content of a ``tokenizer.json`` in Hugging Face format.
Gives:   ``gguf_vocabulary``: what a GGUF file holds of it, or an error that says why llama.cpp would read text otherwise.

llama.cpp has each regular expression that cuts text into words in its own code, by a name: ``tokenizer.ggml.pre``.

Source: ggml-org/llama.cpp, ``llama-vocab.cpp`` (names, and which of them look for whole words before they merge).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from pipelines.errors import CheckpointError

GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LATER_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                r"\s+(?!\S)|\s+")
QWEN2_WORDS, LLAMA3_WORDS = _LATER_WORDS % "", _LATER_WORDS % "{1,3}"
# by expression, and whether a word that is a token is taken whole (the model's ``ignore_merges``)
PRE = {(GPT2_WORDS, False): "gpt-2", (QWEN2_WORDS, False): "qwen2", (LLAMA3_WORDS, True): "llama-bpe",
       (LLAMA3_WORDS, False): "smaug-bpe"}
NEVER_MERGED = "! !!"  # of a vocabulary without merges: no other merge makes the second part
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # types of tokens
REMEDY = ("train with prepare.tokenizer: {kind: bpe} or {kind: bytes}; or use the folder as it is: transformers takes any "
          "tokenizer")


@dataclass(frozen=True)
class Vocabulary:
    pre: str
    tokens: list[str]  # by id
    types: list[int]
    merges: list[str]  # never empty: llama.cpp demands some


def gguf_vocabulary(place: str, saved: Mapping[str, Any], size: int) -> Vocabulary:
    """
    Args:
        place: of the file, for errors. size: ids that the model has; those that no token has are filled up.
    Raises:
        CheckpointError: llama.cpp would give other ids.
        KeyError, TypeError, ValueError: it is no tokenizer of this model.
    """
    if (reason := _other_ids(saved)) is not None:
        raise CheckpointError(place, f"{reason}, so llama.cpp would read text otherwise than the model has learned it", REMEDY)
    ids = {index: (token, NORMAL) for token, index in saved["model"]["vocab"].items()}
    for token in saved["added_tokens"]:
        text, _ = ids.get(token["id"], (token["content"], NORMAL))
        if text != token["content"]:
            raise ValueError(f"tokens {text!r} and {token['content']!r} have one id, {token['id']}")
        ids[token["id"]] = (text, CONTROL if token["special"] else USER_DEFINED)
    if max(ids) >= size:
        raise ValueError(f"token {max(ids)} of a vocabulary of {size}")
    tokens = [ids.get(index, (f"[PAD{index}]", UNUSED)) for index in range(size)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in saved["model"]["merges"]]
    return Vocabulary(_pre(saved) or "", [token for token, _ in tokens], [kind for _, kind in tokens], merges or [NEVER_MERGED])


def _other_ids(saved: Mapping[str, Any]) -> str | None:
    """Why llama.cpp would give other ids; None where it does not."""
    model, normalizer, steps = saved["model"], saved["normalizer"], _steps(saved)
    if model["type"] != "BPE":
        return f"is a {model['type']} tokenizer, not a byte-level BPE"
    if normalizer is not None and normalizer.get("normalizers") != []:
        return f"changes text before it is cut ({normalizer['type']})"
    if not steps or steps[-1]["type"] != "ByteLevel" or not set(ByteLevel.alphabet()) <= model["vocab"].keys():
        return "is not byte-level"
    if steps[-1]["add_prefix_space"]:
        return "puts a space before each text (add_prefix_space)"
    for setting in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(setting):
            return f"has {setting} {model[setting]!r}"
    for token in saved["added_tokens"]:
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            return f"looks at what stands beside {token['content']!r} (lstrip, rstrip or single_word)"
    if _pre(saved) is None:
        return (f"cuts text into words by {_words(saved) or 'steps'!r} (ignore_merges: {bool(model.get('ignore_merges'))}), "
                "which is not one of the expressions of GPT-2, Qwen2 and Llama 3")
    return None


def _steps(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the pre-tokenizer."""
    first = saved["pre_tokenizer"]
    if first is None:
        return []
    return first["pretokenizers"] if first["type"] == "Sequence" else [first]


def _words(saved: Mapping[str, Any]) -> str | None:
    """The regular expression that cuts text into words; None where it is not one."""
    *before, last = _steps(saved)
    if not before:
        return GPT2_WORDS if last["use_regex"] else None
    split = before[0]
    alone = len(before) == 1 and split["type"] == "Split" and not last["use_regex"]
    return split["pattern"].get("Regex") if alone and split["behavior"] == "Isolated" and not split["invert"] else None


def _pre(saved: Mapping[str, Any]) -> str | None:
    """llama.cpp's name of how text is cut into words; None where it has none."""
    model = saved["model"]
    whole = bool(model.get("ignore_merges"))
    if not model["merges"] and not whole:
        return PRE[GPT2_WORDS, False]  # a token for each byte, however they are cut
    return PRE.get((_words(saved) or "", whole))
