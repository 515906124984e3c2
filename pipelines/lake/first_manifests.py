"""Manifests of the first format, which knew one task: read as those of today.

Runs on: driver and ranks.
Takes:   the JSON of a manifest whose ``format_version`` is 1.
Gives:   the same dataset in the words of ``manifest.py``. What this says is history: it does not change with the task.
"""

from __future__ import annotations

from typing import Any

FIRST_FORMAT = 1
_BASELINES = (("guessing", "uniform"), ("token frequencies", "unigram"), ("a bigram model", "bigram"))  # weakest first


def of_first_format(content: dict[str, Any]) -> dict[str, Any]:
    """Raises KeyError or TypeError where something is missing, or is not what it should be."""
    length, end_of_text_id = content["sequence_length"], content["end_of_text_id"]
    counts, losses = dict(content["counts"]), content["baselines"]
    asked = {split: counts.pop(f"bigram_{split}_tokens", 0) for split in ("train", "validation")}
    units = {split: counts.pop(f"{split}_tokens", 0) for split in content["splits"]}
    notes = {"bigram": f"which token follows which; counted on {asked['train']:,} of {units['train']:,} train tokens, asked for "
                       f"{asked['validation']:,} validation tokens"}
    task = language_of(vocabulary_size=content["vocabulary_size"], sequence_length=length, end_of_text_id=end_of_text_id,
                       tokenizer_sha256=content["tokenizer_sha256"])
    return {
        **{name: content[name] for name in ("name", "version", "input_fingerprint", "recipe_hash", "splits")},
        "task": task, "counts": counts, "units": units, "source": content.get("source", {}),
        "baselines": [{"name": name, "loss": losses[known], "note": notes.get(known, "")}
                      for name, known in _BASELINES if known in losses],
    }


def language_of(*, vocabulary_size: int, sequence_length: int, end_of_text_id: int, tokenizer_sha256: str) -> dict[str, Any]:
    """The one task that there was, as JSON; models that were exported then are of it too."""
    return {
        "name": "language",
        "columns": [{"name": "tokens", "dtype": "int32", "shape": [sequence_length + 1], "filling": end_of_text_id,
                     "allowed": None},
                    {"name": "length", "dtype": "int32", "shape": [], "filling": 0, "allowed": [2, sequence_length + 1]}],
        "sizes": {"vocabulary_size": vocabulary_size, "sequence_length": sequence_length},
        "unit": "tokens", "units_per_sample": sequence_length, "loss_unit": "nats per token", "loss_exponential": "perplexity",
        "facts": {"end_of_text_id": end_of_text_id, "tokenizer_sha256": tokenizer_sha256},
    }
