"""Peer of the prepare benchmark: Hugging Face datasets from text files to packed Parquet, 2 processes.

Start: ``python hf_prepare.py FILE_LIST TOKENIZER_JSON SEQUENCE_LENGTH OUT_FOLDER [--warm]`` in the peers' environment.
Prints seconds and tokens as JSON; with --warm it has prepared a few files before.
The steps are those of the usual language-model script: map(tokenize), map(group), save.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_DATASETS_DISABLE_PROGRESS_BARS="1")

import datasets
from tokenizers import Tokenizer


def prepare(files: list[str], tokenizer_path: str, sequence_length: int, out: Path) -> int:
    """Writes packed rows of sequence_length + 1 tokens; returns the number of tokens in them."""
    tokenizer = Tokenizer.from_file(tokenizer_path)
    end = tokenizer.token_to_id("<|endoftext|>")
    width = sequence_length + 1
    texts = datasets.load_dataset("text", data_files=files, sample_by="document", split="train", encoding_errors="replace",
                                  cache_dir=str(out / "cache"))

    def tokenize(batch: dict) -> dict:
        return {"ids": [[*encoded.ids, end] for encoded in tokenizer.encode_batch_fast(batch["text"])]}

    def group(batch: dict) -> dict:
        joined = [token for ids in batch["ids"] for token in ids]
        whole = len(joined) // width * width
        return {"tokens": [joined[i : i + width] for i in range(0, whole, width)]}

    tokens = texts.map(tokenize, batched=True, num_proc=2, remove_columns=["text"])
    packed = tokens.map(group, batched=True, num_proc=2, remove_columns=["ids"])
    packed.to_parquet(str(out / "train.parquet"))
    return len(packed) * width


def main() -> None:
    files = Path(sys.argv[1]).read_text().splitlines()
    out = Path(sys.argv[4])
    if "--warm" in sys.argv:
        prepare(files[:20], sys.argv[2], int(sys.argv[3]), out / "warm")
    began = time.perf_counter()
    tokens = prepare(files, sys.argv[2], int(sys.argv[3]), out / "measured")
    print(json.dumps({"seconds": time.perf_counter() - began, "tokens": tokens}))


if __name__ == "__main__":
    main()
