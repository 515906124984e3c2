"""The GPT's facts, counted by hand.

Runs on: driver (no torch).
Takes:   recipe section ``model`` and the dataset's task, which is ``language``.
Gives:   ``ModelFacts``; tests hold them against ``models/gpt/model.py``.
"""

from __future__ import annotations

from pipelines.lake.task_facts import TaskFacts
from pipelines.models.gpt.settings import GptModel
from pipelines.plan.model_facts import FLOAT_BYTES, LayerFacts, ModelFacts


def facts(settings: GptModel, task: TaskFacts) -> ModelFacts:
    """Of the GPT in ``models/gpt/model.py``, counted by hand.

    A block keeps 17 values per token and unit of width (its norms' inputs and outputs, query, key, value, the mixed
    values twice, the fourfold feed-forward twice) and the head one copy of the logits. Source for the manner of
    counting: Korthikanti et al. 2022, section 4.
    """
    width, length = settings.width, task.sizes["sequence_length"]
    vocabulary, positions = settings.sizes_of(task.sizes)
    norm = width * (2 if settings.bias else 1)
    block = 12 * width * width + (8 * width if settings.bias else 0) + 2 * norm
    hidden_bytes = FLOAT_BYTES * length * width
    table = vocabulary * width
    masks = 1 if settings.dropout else 0  # a value for each that dropout may take away
    blocks = [LayerFacts(f"block_{i}", block, 0, ((19 if settings.bias else 17) + 2 * masks) * hidden_bytes, hidden_bytes,
                         6.0 * block * length + 12.0 * length * length * width,
                         matrix_parameters=12 * width * width) for i in range(settings.num_layers)]
    logits_bytes = FLOAT_BYTES * length * vocabulary
    return ModelFacts((
        LayerFacts("embedding", (vocabulary + positions) * width, 0, masks * hidden_bytes, hidden_bytes, 0.0), *blocks,
        LayerFacts("head", norm + (0 if settings.tied_embeddings else table), table if settings.tied_embeddings else 0,
                   logits_bytes + 2 * hidden_bytes, logits_bytes, 6.0 * table * length)))
