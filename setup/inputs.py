"""Turns ``make demo DATA=...`` into an override for the job; with ``images`` or ``split`` ``make demo-images DATA=...``.

Runs on: the machine that runs make.
Takes:   the environment variable DATA: a file, a folder, a glob or a URL; or several, as a shell would read them.
Gives:   ``prepare.inputs=[...]`` on standard output; the format of text follows the ending (.jsonl, .parquet, else text), that
         of images is found by the job. With ``split``, ``prepare.split.kind=folder`` where the data is a folder with classes in
         a folder ``train`` (and in others beside it), else ``hash``.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

FORMATS = {".jsonl": "jsonl", ".parquet": "parquet"}


def inputs_override(data: str, *, images: bool = False) -> str:
    """The override. A path that exists is taken whole, so that spaces in it need no quoting."""
    paths = [data] if Path(data).exists() else shlex.split(data)
    inputs = [{"path": path} if images else {"path": path, "format": FORMATS.get(Path(path).suffix, "text")} for path in paths]
    return "prepare.inputs=" + json.dumps(inputs, ensure_ascii=False)


def split_override(data: str) -> str:
    train = Path(data, "train")
    divided = train.is_dir() and any(each.is_dir() for each in train.iterdir())
    return f"prepare.split.kind={'folder' if divided else 'hash'}"


if __name__ == "__main__":
    if sys.argv[1:] == ["split"]:
        print(split_override(os.environ["DATA"]))
    else:
        print(inputs_override(os.environ["DATA"], images=sys.argv[1:] == ["images"]))
