"""The bigram model.

Runs on: ranks.
Takes:   its section of the recipe, the sizes of the dataset, the seed.
Gives:   ``sketch`` and ``fill``.
"""

from __future__ import annotations

import torch
from torch import nn

from pipelines.models.initial_values import generator_of
from pipelines.models.layered import LayeredModel


def sketch(settings, seed, *, vocabulary_size, sequence_length):
    with torch.device("meta"):
        return LayeredModel([("table", nn.Embedding(vocabulary_size, settings.width)),
                             ("logits", nn.Linear(settings.width, vocabulary_size))])


def fill(bigram, settings, seed, layers):
    bigram.fill(layers, lambda name, parameter: parameter.normal_(0.0, 0.1, generator=generator_of(seed, name)))
