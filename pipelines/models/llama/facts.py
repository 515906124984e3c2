"""Facts of a Llama or Qwen3, counted by hand.

Runs on: driver (no torch).
Takes:   recipe section ``model`` and the dataset's task, which is ``language``.
Gives:   ``ModelFacts``; tests hold them against ``models/llama/model.py``.
"""

from __future__ import annotations

from pipelines.lake.task_facts import TaskFacts
from pipelines.models.llama.settings import LlamaModel
from pipelines.plan.model_facts import FLOAT_BYTES, LayerFacts, ModelFacts


def facts(settings: LlamaModel, task: TaskFacts) -> ModelFacts:
    """Kept for backward is counted for each token; what the norms of heads take is theirs to keep."""
    width, feed, head = settings.width, settings.width_of_feed, settings.width_of_head
    queries, keys = settings.heads * head, settings.key_value_heads * head
    (vocabulary, _), length = settings.sizes_of(task.sizes), task.sizes["sequence_length"]
    matrices = 2 * width * queries + 2 * width * keys + 3 * width * feed
    norms = 2 * width + (2 * head if settings.normalises_heads else 0)
    # what enters norms and projections; queries turned, mixed, mixed as o_proj takes them; keys turned, and values; the net's
    kept = 4 * width + 3 * queries + 2 * keys + 4 * feed + (queries + keys if settings.normalises_heads else 0)
    hidden_bytes = FLOAT_BYTES * length * width
    blocks = [LayerFacts(f"block_{i}", matrices + norms, 0, FLOAT_BYTES * length * kept, hidden_bytes,
                         6.0 * matrices * length + 12.0 * length * length * queries, FLOAT_BYTES * 2 * length * head, matrices)
              for i in range(settings.num_layers)]
    table = vocabulary * width
    logits_bytes = FLOAT_BYTES * length * vocabulary
    tied = settings.tied_embeddings
    return ModelFacts((
        LayerFacts("embedding", table, 0, 0, hidden_bytes, 0.0), *blocks,
        LayerFacts("head", width + (0 if tied else table), table if tied else 0, logits_bytes + 2 * hidden_bytes, logits_bytes,
                   6.0 * table * length)))
