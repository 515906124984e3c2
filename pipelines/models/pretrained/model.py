"""A model that goes on from a folder: the structure of its architecture, with the folder's weights.

Runs on: ranks.
Takes:   recipe section ``model``, the dataset's sizes.
Gives:   a ``LayeredModel``, the same on every rank and layout.
"""

from __future__ import annotations

from collections.abc import Collection

from pipelines.errors import CheckpointError
from pipelines.models.architectures import module_of
from pipelines.models.layered import LayeredModel
from pipelines.models.pretrained.opened import ARCHITECTURE_HASH, architecture_hash, opened_folder
from pipelines.models.pretrained.settings import PretrainedModel
from pipelines.models.weight_slices import parts_of, read_layers


def sketch(settings: PretrainedModel, seed: int, **sizes: int) -> LayeredModel:
    section = opened_folder(settings.folder).section
    model: LayeredModel = module_of(section, "model").sketch(section, seed, **sizes)
    return model


def fill(model: LayeredModel, settings: PretrainedModel, seed: int, layers: Collection[str]) -> dict[str, str]:
    """Reads some layers; a rank holds no more of the files than it keeps.

    Returns:
        The hash of each tensor that was read, and that of the architecture.
    Raises:
        CheckpointError: the weights are not the architecture's, or cannot be read.
    """
    found = opened_folder(settings.folder)
    try:
        hashes = read_layers(model, layers, parts_of(found.standard, model.specs(), found.tensors), found.folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(found.folder.place(), f"cannot be read ({error})", "copy it again") from error
    module_of(found.section, "model").fill(model, found.section, seed, layers)  # constants that are computed, not stored
    return {ARCHITECTURE_HASH: architecture_hash(found), **hashes}
