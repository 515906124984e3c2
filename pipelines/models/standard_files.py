"""The files beside the weights with which other libraries load a language model, and the model card.

Runs on: rank 0.
Takes:   the model in their words, the task, its tokenizer, where the model comes from.
Gives:   ``standard_files``: each file's content by its name.

Source: transformers (``config.json``, ``generation_config.json``, ``tokenizer_config.json``); Mitchell et al. 2019 (model cards).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from pipelines.lake.manifest import TOKENIZER_NAME
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.standard_model import Standard

CARD_NAME = "README.md"


def standard_files(standard: Standard, task: TaskFacts, files: Mapping[str, bytes], parameters: int,
                   lineage: Mapping[str, str]) -> dict[str, bytes]:
    """
    Args:
        files: the dataset's, its tokenizer among them. lineage: for the card, a line each; ``step`` and ``validation_loss``
            are among them.
    """
    config = standard.config(task)
    end = task.facts["end_of_text_id"]
    found: dict[str, Any] = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "do_sample": True,
                                   "temperature": 0.8, "top_k": 50}}
    if TOKENIZER_NAME in files:
        token = Tokenizer.from_buffer(files[TOKENIZER_NAME]).id_to_token(end)
        found["tokenizer_config.json"] = {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": token, "eos_token": token, "pad_token": token,
            "model_max_length": _positions(config), "clean_up_tokenization_spaces": False}
    contents = {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in found.items()}
    return {**contents, CARD_NAME: _card(config, parameters, lineage).encode()}


def _positions(config: Mapping[str, Any]) -> int:
    return int(config.get("n_positions") or config["max_position_embeddings"])


def _card(config: Mapping[str, Any], parameters: int, lineage: Mapping[str, str]) -> str:
    architecture, loss = config["architectures"][0], float(lineage.get("validation_loss", "nan"))
    facts = {"architecture": f"`{architecture}`", "parameters": f"{parameters:,}",
             "context": f"{_positions(config):,} tokens", "vocabulary": f"{config['vocab_size']:,} tokens",
             **{name.replace("_", " "): value for name, value in lineage.items() if name not in ("format", "names")}}
    if math.isfinite(loss):
        facts["validation loss"] = f"{loss:.4f} nats a token (perplexity {math.exp(min(loss, 700.0)):,.2f})"
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [sparkring]
---
# {lineage.get("run_id", "A language model")}

A language model that goes on from a text, trained by sparkring.

| | |
|---|---|
{rows}

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokens = tokenizer("Once", return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens=100)[0]))
```

## Limits

It has learned to predict the next token of texts like those of its dataset, and nothing else: it follows no instructions, what it
says need not be true, and it repeats what it has read, mistakes and prejudice included. Beyond {_positions(config):,}
tokens it has never been trained. The loss above is that of the dataset's validation split; of other texts it says nothing.
"""
