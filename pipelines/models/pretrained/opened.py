"""The folder that a model goes on from, looked at: which architecture it is, and where each of its tensors lies.

Runs on: driver and ranks (no torch).
Takes:   a path or URL; of transformers' folders ``config.json``, of those exported here ``sparkring.json``.
Gives:   ``opened_folder``; ``vocabulary_of``, what tokens a tokenizer has; ``hashes_of`` the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pydantic import TypeAdapter

from pipelines.config.load import content_hash
from pipelines.config.models import ARCHITECTURES, LanguageModelSection, Model
from pipelines.errors import CheckpointError
from pipelines.lake.exported import DESCRIPTION_NAME, described
from pipelines.lake.remote_folder import folder_at
from pipelines.lake.stored_weights import (
    INDEX_NAME,
    WEIGHTS_NAME,
    ModelFolder,
    StoredTensor,
    differing,
    read_tensor,
    stored_weights,
)
from pipelines.models.foreign_config import ForeignArchitecture, read_config
from pipelines.models.standard_model import NAMES_NOTE, Standard, standard_of

CONFIG_NAME = "config.json"
ARCHITECTURE_HASH = "architecture"  # beside those of tensors
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Opened:
    """A folder as it is now."""

    url: str
    section: Model  # of its architecture
    standard: Standard | None  # whose names its files have; None: ours
    tensors: dict[str, StoredTensor]  # by these names
    embedding_again: tuple[StoredTensor, StoredTensor] | None = None  # a tied head that was written beside its embedding

    @property
    def folder(self) -> ModelFolder:
        return folder_at(self.url)


def opened_folder(url: str) -> Opened:
    """Looked at again only where its files have changed.

    Raises:
        CheckpointError: it is no model, none that is known here, or damaged. DataError: the URL cannot be read.
    """
    folder = folder_at(url)
    try:
        marks = tuple(folder.facts(name) for name in (CONFIG_NAME, DESCRIPTION_NAME, INDEX_NAME, WEIGHTS_NAME))
        return _opened(url, marks)
    except OSError as error:
        raise CheckpointError(folder.place(), f"cannot be read: {error.strerror or error}", "let this user read it") from error


@lru_cache(maxsize=8)
def _opened(url: str, marks: tuple[object, ...]) -> Opened:
    folder = folder_at(url)
    if marks[:2] == (None, None):
        raise CheckpointError(folder.place(), f"holds no {CONFIG_NAME}", "give the folder of a model, as transformers saves "
                              "it or a run exports it")
    try:
        if marks[1] is not None:
            return _exported_here(url)
        content = json.loads(folder.read(CONFIG_NAME))
        if not isinstance(content, dict):
            raise ValueError("not a mapping")
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(folder.place(), f"is not a model's folder ({error})", "copy it again") from error
    architectures = _foreign_architectures()
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in architectures:
        raise CheckpointError(folder.place(CONFIG_NAME), f"model_type {kind!r} is none that is known here", "use a model of "
                              f"{', '.join(architectures)}")
    return _of_transformers(url, architectures[kind], content)


def hashes_of(found: Opened) -> dict[str, str]:
    """What decides the model: of each tensor a hash, and one of the architecture. All weights are read.

    Raises:
        CheckpointError: a file ends early, or cannot be read. DataError: the URL cannot be read.
    """
    tensors = (*found.tensors.values(), *(found.embedding_again or ())[1:])
    marks = tuple(found.folder.facts(name) for name in sorted({tensor.file for tensor in tensors}))
    try:
        hashes = dict(_hashes(found.url, tensors, marks))
    except (OSError, ValueError) as error:
        raise CheckpointError(found.folder.place(), f"cannot be read: {error}", "copy it again, and let this user "
                              "read it") from error
    if found.embedding_again is not None:
        embedding, head = found.embedding_again
        if hashes.pop(head.name) != hashes[embedding.name]:
            raise CheckpointError(found.folder.place(head.file), f"{head.name} is not {embedding.name}, and by {CONFIG_NAME} "
                                  "they are one (tie_word_embeddings)", f"set tie_word_embeddings to false in {CONFIG_NAME}")
    return {ARCHITECTURE_HASH: architecture_hash(found), **hashes}


def architecture_hash(found: Opened) -> str:
    """Of the section without its defaults, so that settings which come later change no hash."""
    return content_hash({"kind": found.section.kind, **found.section.model_dump(mode="json", exclude_defaults=True)})


@lru_cache(maxsize=8)
def _hashes(url: str, tensors: tuple[StoredTensor, ...], marks: tuple[object, ...]) -> tuple[tuple[str, str], ...]:
    folder, hashes = folder_at(url), []
    for name in sorted({tensor.file for tensor in tensors}):
        with folder.open(name) as file:
            hashes += [(tensor.name, read_tensor(file, tensor)) for tensor in tensors if tensor.file == name]
    return tuple(hashes)


def _foreign_architectures() -> dict[str, ForeignArchitecture]:
    """By ``model_type``: of the folders that can read one."""
    modules = [f"{package}.config_json" for package in ARCHITECTURES.values()]
    found: list[ForeignArchitecture] = [import_module(module).ARCHITECTURE for module in modules if find_spec(module) is not None]
    return {architecture.model_type: architecture for architecture in found}


def vocabulary_of(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """The id of each token.

    Args:
        tokenizer: content of a ``tokenizer.json``.
    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    vocabulary = tokenizer["model"]["vocab"]
    known = {token: i for i, (token, _) in enumerate(vocabulary)} if isinstance(vocabulary, list) else dict(vocabulary)
    return known | {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}


def _exported_here(url: str) -> Opened:
    """A run's model."""
    folder = folder_at(url)
    content, task = described(folder)
    section: Model = TypeAdapter(Model).validate_python(content)
    if section.origin is not None:
        raise ValueError(f"{DESCRIPTION_NAME} leads to {section.origin}")
    if section.users_factory is not None:
        raise CheckpointError(folder.place(), f"was made by the factory {section.users_factory}", "models of your own are not "
                              "gone on from yet: give one of this project's architectures")
    if isinstance(section, LanguageModelSection):
        vocabulary_size, positions = section.sizes_of(task.sizes)
        section = section.model_copy(update={"vocabulary_size": vocabulary_size, "positions": positions})
    stored = stored_weights(folder)
    return Opened(url, section, standard_of(section) if NAMES_NOTE in stored.notes else None, stored.tensors)


def _of_transformers(url: str, architecture: ForeignArchitecture, content: Mapping[str, Any]) -> Opened:
    folder = folder_at(url)
    section = read_config(architecture, content, folder.place(CONFIG_NAME))
    shapes = architecture.shapes(section)
    found: dict[str, StoredTensor] = {}
    again: StoredTensor | None = None
    for name, tensor in stored_weights(folder, whole_first=True).tensors.items():
        if not name.endswith(architecture.not_weights):
            known = name if name in shapes or name == HEAD else f"{architecture.prefix}{name}"
            found[known if known in shapes else name] = replace(tensor, name=known if known in shapes else name)
    if HEAD in found and HEAD not in shapes:  # tied: the embedding, written once more
        again = found.pop(HEAD)
    if found.keys() != shapes.keys():
        raise CheckpointError(folder.place(), f"does not fit its {CONFIG_NAME}: {differing(shapes, found)}",
                              f"give the folder whose {CONFIG_NAME} is of these weights")
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise CheckpointError(folder.place(found[name].file), f"{name} has the shape {list(found[name].shape)}, "
                                  f"by {CONFIG_NAME} it is {list(shape)}", f"give the folder whose {CONFIG_NAME} is of these "
                                  "weights")
        if found[name].dtype not in ("F64", "F32", "F16", "BF16"):
            raise CheckpointError(folder.place(found[name].file), f"{name} is of type {found[name].dtype}", "give weights that "
                                  "are not quantized")
    return Opened(url, section, standard_of(section), found,
                  None if again is None else (found[architecture.embedding], again))
