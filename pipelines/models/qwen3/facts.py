"""Facts of a Qwen3: a Llama's, with the gains of its heads.

Runs on: driver (no torch).
Takes, gives: see ``models/llama/facts.py``.
"""

from pipelines.models.llama.facts import facts

__all__ = ["facts"]
