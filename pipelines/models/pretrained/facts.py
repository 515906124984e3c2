"""Facts of a model that goes on from a folder: those of its architecture, and the hashes of its weights.

Runs on: driver (no torch).
Takes:   recipe section ``model`` and the dataset's task.
Gives:   ``facts``; ``check_vocabulary``, which holds the dataset's tokens against the folder's.
"""

from __future__ import annotations

import json
from dataclasses import replace

from pipelines.config.models import LanguageModelSection
from pipelines.errors import CheckpointError, ConfigError, SparkringError
from pipelines.lake.manifest import TOKENIZER_NAME
from pipelines.lake.store import Store
from pipelines.lake.task_facts import TaskFacts
from pipelines.models.architectures import module_of
from pipelines.models.pretrained.opened import Opened, hashes_of, opened_folder, vocabulary_of
from pipelines.models.pretrained.settings import PretrainedModel
from pipelines.plan.model_facts import ModelFacts

PLACE = "model.from"


def facts(settings: PretrainedModel, task: TaskFacts) -> ModelFacts:
    """
    Raises:
        CheckpointError: it is no model, or a damaged one. ConfigError: it is not for such data.
    """
    found = opened_folder(settings.folder)
    _check_sizes(found, task)
    counted: ModelFacts = module_of(found.section, "facts").facts(found.section, task)
    return replace(counted, code=hashes_of(found))


def check_vocabulary(settings: PretrainedModel, dataset: Store) -> None:
    """Raises ConfigError where a token of the folder's has another id in the dataset, and with it another meaning."""
    found = opened_folder(settings.folder)
    if found.folder.facts(TOKENIZER_NAME) is None or dataset.facts(TOKENIZER_NAME) is None:
        return
    try:
        own = vocabulary_of(json.loads(found.folder.read(TOKENIZER_NAME)))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(found.folder.place(TOKENIZER_NAME), f"is not a tokenizer.json ({error!r})",
                              "copy it again") from error
    datasets = vocabulary_of(json.loads(dataset.read(TOKENIZER_NAME)))
    other = [token for token, index in own.items() if datasets.get(token) != index]
    if other:
        raise ConfigError(SparkringError(
            PLACE, f"{len(other):,} of the {len(own):,} tokens of {found.folder.place(TOKENIZER_NAME)} have another id in the "
            f"dataset, or none ({other[0]!r}: {own[other[0]]} there, {datasets.get(other[0], 'none')} here): the weights mean "
            "other words", "leave prepare.tokenizer out, so that the dataset has the folder's"))


def _check_sizes(found: Opened, task: TaskFacts) -> None:
    section, place = found.section, found.folder.place()
    if section.task not in (None, task.name):
        raise ConfigError(SparkringError(PLACE, f"{place} is a model for {section.task}, the dataset is for {task.name}",
                                         "give a model of the same task"))
    if not isinstance(section, LanguageModelSection):
        return
    tokens, window = task.sizes["vocabulary_size"], task.sizes["sequence_length"]
    faults = []
    if section.vocabulary_size is not None and section.vocabulary_size < tokens:
        faults.append(SparkringError(PLACE, f"{place} has {section.vocabulary_size:,} tokens, the dataset's tokenizer has ids "
                                     f"up to {tokens - 1:,}", "give the tokenizer that the model was made with"))
    if section.positions is not None and section.positions < window:
        faults.append(SparkringError(PLACE, f"{place} is for up to {section.positions:,} tokens, prepare.sequence_length is "
                                     f"{window:,}", f"use at most {section.positions}"))
    if faults:
        raise ConfigError(faults)
