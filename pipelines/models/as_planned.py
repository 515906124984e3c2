"""The recipe's model on a rank, made of what the driver looked at: the code of a user's own, the weights of a folder.

Runs on: ranks.
Takes:   recipe section ``model``, and the hashes that the plan has (``ModelFacts.code``).
Gives:   ``sketch_as_planned``, ``fill_as_planned``: as in ``build.py``, or an error that says what is another thing here.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping

from pipelines.config.models import Model
from pipelines.errors import RankFailedError
from pipelines.lake.stored_weights import shortened
from pipelines.models.build import Sizes, fill_model, sketch_model
from pipelines.models.factory.own_code import check_code_as_planned
from pipelines.models.layered import LayeredModel


def sketch_as_planned(settings: Model, sizes: Sizes, seed: int, planned: Mapping[str, str]) -> LayeredModel:
    """
    Raises:
        RankFailedError: a user's code is not what the driver looked at. ConfigError: see ``sketch_model``.
    """
    model = sketch_model(settings, sizes, seed)
    if settings.users_factory is not None:
        check_code_as_planned(settings.users_factory, planned, model)
    return model


def fill_as_planned(model: LayeredModel, settings: Model, seed: int, layers: Iterable[str], planned: Mapping[str, str]) -> None:
    """
    Args:
        layers: filled one after the other, so that an iterable can tell how far it is.
    Raises:
        RankFailedError: a tensor of a folder is not what the driver looked at. CheckpointError: it cannot be read.
    """
    read: dict[str, str] = {}
    for layer in layers:
        read |= fill_model(model, settings, seed, (layer,))
    if other := sorted(name for name, digest in read.items() if planned.get(name) != digest):
        raise RankFailedError("model.from", f"{settings.origin} on {socket.gethostname()} is not what the driver looked at "
                              f"({shortened(other)})", "have the same files on all hosts; where they were replaced meanwhile, "
                              "repeat the command")
