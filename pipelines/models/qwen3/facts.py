"""Facts of a Qwen3: a Llama's, with the gains of its heads.

Runs on: driver (no torch).
Takes:   recipe section ``model`` and the dataset's task.
Gives:   ``facts``, see ``models/llama/facts.py``.
"""

from pipelines.models.llama.facts import facts

__all__ = ["facts"]
