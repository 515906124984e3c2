"""The facts of the bigram model.

Runs on: driver (no torch).
Takes:   its section of the recipe and the dataset's task.
Gives:   ``ModelFacts``.
"""

from __future__ import annotations

from pipelines.plan.model_facts import FLOAT_BYTES, LayerFacts, ModelFacts


def facts(settings, task):
    vocabulary, length, width = task.sizes["vocabulary_size"], task.sizes["sequence_length"], settings.width
    hidden, logits = FLOAT_BYTES * length * width, FLOAT_BYTES * length * vocabulary
    work = 6.0 * width * vocabulary * length
    return ModelFacts((LayerFacts("table", vocabulary * width, 0, 0, hidden, 0.0),
                       LayerFacts("logits", (width + 1) * vocabulary, 0, hidden + logits, logits, work)))
