"""The tokenizer of a dataset: trained, given, or built from its characters or bytes.

Runs on: driver.
Takes:   the recipe's ``prepare.tokenizer`` and text to learn from.
Gives:   a ``tokenizers.Tokenizer`` whose saved ``tokenizer.json`` encodes and decodes alone, with an end-of-text token.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipelines.errors import DataError
from pipelines.lake.remote_folder import file_at

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_NAMES = (END_OF_TEXT, "<|end_of_text|>", "<|eot_id|>", "</s>", "<eos>", "[EOS]", "<|im_end|>")


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary.

    Source: openai/gpt-2, encoder.py, bytes_to_unicode.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def train_bpe(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Byte-level BPE with GPT-2's words; end-of-text is token 0. Small texts give a smaller vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size, special_tokens=[END_OF_TEXT],
                                  initial_alphabet=byte_characters(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def bytes_tokenizer() -> Tokenizer:
    """Token i is byte i; end-of-text is 256."""
    tokenizer = Tokenizer(models.BPE(vocab={char: byte for byte, char in enumerate(byte_characters())}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def characters_tokenizer(alphabet: str) -> Tokenizer:
    """One token per character, in the order of their code points; end-of-text behind them."""
    vocabulary = {char: index for index, char in enumerate(sorted(set(alphabet)))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def given_tokenizer(path: str) -> Tokenizer:
    """A ``tokenizer.json`` in Hugging Face format, at a path or URL; an end-of-text token is added where it has none.

    Raises:
        DataError: missing, or not a tokenizer.
    """
    try:
        return tokenizer_of(file_at(path))
    except OSError as error:
        raise DataError("prepare.tokenizer.path", f"{path!r} cannot be read: {error.strerror or error}", "give a tokenizer.json "
                        "in Hugging Face format; without prepare.tokenizer it is that of model.from") from error
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError("prepare.tokenizer.path", f"{path!r} is not a tokenizer.json ({reason})",
                        "give a tokenizer.json in Hugging Face format") from error


def tokenizer_of(saved: bytes) -> Tokenizer:
    """Of the content of a ``tokenizer.json``. Raises ValueError where it is none."""
    tokenizer = Tokenizer.from_buffer(saved)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if all(tokenizer.token_to_id(name) is None for name in END_OF_TEXT_NAMES):
        tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def end_of_text_id(tokenizer: Tokenizer) -> int:
    return next(index for name in END_OF_TEXT_NAMES if (index := tokenizer.token_to_id(name)) is not None)


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest token id (a given vocabulary may have gaps)."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
