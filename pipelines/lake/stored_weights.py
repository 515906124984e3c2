"""What lies in a model's safetensors files, found without reading a value, and tensors read from them piece by piece.

Runs on: driver and ranks (no torch).
Takes:   the folder of a model, ours or another library's: one file, or several that an index names.
Gives:   ``stored_weights``; ``read_tensor``, which gives the hash of what was read; ``weights_object``, which makes a model
         visible.

Source: the format's description (Hugging Face): 8 bytes with the header's length, the header in JSON, the values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from pipelines.errors import CheckpointError
from pipelines.lake.store import ObjectFacts

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = f"{WEIGHTS_NAME}.index.json"  # of weights in several files, which it names
LONGEST_HEADER = 100 * 1000**2  # bytes, as safetensors has it
VALUE_BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "C64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
                  "U64": 8, "U32": 4, "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
PIECE_BYTES = 4 * 1024**2  # read at once
# of libraries that unpickle them, which runs whatever code they hold
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth", "model.pt")


class ModelFolder(Protocol):
    """What is asked of the folder of a model: a part of ``Store``."""

    def place(self, key: str = "") -> str: ...

    def read(self, key: str) -> bytes: ...

    def facts(self, key: str) -> ObjectFacts | None: ...

    def open(self, key: str) -> Any: ...


@dataclass(frozen=True)
class StoredTensor:
    name: str
    file: str
    dtype: str  # as the format calls it, one of ``VALUE_BYTES_OF``
    shape: tuple[int, ...]
    begin: int  # of its values, in the file
    end: int


@dataclass(frozen=True)
class StoredWeights:
    tensors: dict[str, StoredTensor]  # by name
    notes: dict[str, str]


def weights_object(folder: ModelFolder) -> str | None:
    """What is written last of a model: its weights, or the index of several files of them. None: there is no model."""
    return next((name for name in (INDEX_NAME, WEIGHTS_NAME) if folder.facts(name) is not None), None)


def stored_weights(folder: ModelFolder, *, whole_first: bool = False) -> StoredWeights:
    """
    Args:
        whole_first: of one file and an index, the file counts, as for transformers; else the index, which is written last here.
    Raises:
        CheckpointError: there are none, or only pickled ones; a file is missing, cut off, or none of the format.
        OSError: a file cannot be read.
    """
    name = WEIGHTS_NAME if whole_first and folder.facts(WEIGHTS_NAME) is not None else weights_object(folder)
    if name is None:
        raise _no_weights(folder)
    if name == WEIGHTS_NAME:
        return _of_file(folder, WEIGHTS_NAME)
    try:
        index = json.loads(folder.read(INDEX_NAME))
        places = {str(name): str(file) for name, file in index["weight_map"].items()}
        notes = dict(index.get("metadata", {}))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(folder.place(INDEX_NAME), f"is not an index of weights ({error!r})", "copy it again") from error
    files = {}
    for file in sorted(set(places.values())):
        if not re.fullmatch(r"[\w-][\w.-]*", file):
            raise CheckpointError(folder.place(INDEX_NAME), f"names {file!r}, which is no file of this folder", "copy it again")
        files[file] = _of_file(folder, file).tensors
    lacking = [f"{name} in {file}" for name, file in places.items() if name not in files[file]]
    if lacking:
        raise CheckpointError(folder.place(INDEX_NAME), f"names tensors that are not there: {shortened(lacking)}", "copy the "
                              "folder again")
    return StoredWeights({name: files[file][name] for name, file in places.items()}, notes)


def read_tensor(file: Any, tensor: StoredTensor, take: Callable[[int, memoryview], None] | None = None) -> str:
    """Reads a tensor's values, some rows along its first dimension at a time.

    Args:
        file: ``ModelFolder.open`` of the tensor's. take: called with the number of the first row and the rows' bytes, which
            hold until it returns.
    Returns:
        A hash of type, shape and values, 16 hex digits.
    Raises:
        ValueError: the file ends before the tensor does.
    """
    rows, *inner = tensor.shape or (1,)
    row_bytes = prod(inner) * VALUE_BYTES_OF[tensor.dtype]
    at_once = max(1, min(rows, PIECE_BYTES // max(row_bytes, 1)))
    buffer = memoryview(bytearray(at_once * row_bytes))
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    file.seek(tensor.begin)
    for first in range(0, rows if row_bytes else 0, at_once):
        piece = buffer[: min(at_once, rows - first) * row_bytes]
        filled = 0
        while filled < len(piece):
            got = file.readinto(piece[filled:])
            if not got:
                raise ValueError(f"{tensor.file} ends within {tensor.name}")
            filled += got
        digest.update(piece)
        if take is not None:
            take(first, piece)
    return digest.hexdigest()[:16]


def differing(expected: Collection[str], found: Collection[str]) -> str:
    """What of a model's tensors is missing and unknown, in words."""
    return (f"parameters and buffers differ: missing {shortened(sorted(set(expected) - set(found)))}, "
            f"unknown {shortened(sorted(set(found) - set(expected)))}")


def shortened(names: list[str]) -> str:
    """The first of them."""
    return "none" if not names else ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _no_weights(folder: ModelFolder) -> CheckpointError:
    pickled = next((name for name in PICKLED if folder.facts(name) is not None), None)
    if pickled is None:
        return CheckpointError(folder.place(), f"holds no {WEIGHTS_NAME}", "give the folder of a model")
    return CheckpointError(folder.place(pickled), "is pickled, and unpickling runs whatever code it holds",
                           "write it as safetensors, where you trust it: "
                           "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)")


def _of_file(folder: ModelFolder, name: str) -> StoredWeights:
    place, facts = folder.place(name), folder.facts(name)
    if facts is None:
        raise CheckpointError(place, "is missing", "copy the folder again")
    with folder.open(name) as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(LONGEST_HEADER, facts.bytes - 8):
            raise CheckpointError(place, f"is cut off, or no file of safetensors: {facts.bytes:,} bytes, with a header of "
                                  f"{length:,}", "copy it again")
        text = file.read(length)
    try:
        header = json.loads(text)
        notes = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        tensors = {each: _stored(each, name, 8 + length, entry) for each, entry in header.items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(place, f"has no header of safetensors ({error})", "copy it again") from error
    end = 8 + length
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.begin):
        if tensor.begin != end:
            raise CheckpointError(place, f"has a hole or an overlap before {tensor.name}", "write it again")
        end = tensor.end
    if end != facts.bytes:
        raise CheckpointError(place, f"has {facts.bytes:,} bytes, and {end:,} by its header: it was cut off", "copy it again")
    return StoredWeights(tensors, notes)


def _stored(name: str, file: str, values_begin: int, entry: dict[str, Any]) -> StoredTensor:
    (begin, end), shape, dtype = entry["data_offsets"], tuple(entry["shape"]), entry["dtype"]
    if dtype not in VALUE_BYTES_OF:
        raise ValueError(f"{name} is of type {dtype}; known: {', '.join(VALUE_BYTES_OF)}")
    whole = all(isinstance(size, int) and size >= 0 for size in (*shape, begin, end))
    if not whole or prod(shape) * VALUE_BYTES_OF[dtype] != end - begin:
        raise ValueError(f"{name} of shape {list(shape)} does not have {end - begin} bytes")
    return StoredTensor(name, file, dtype, shape, values_begin + begin, values_begin + end)
