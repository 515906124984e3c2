"""A Qwen3 as ``Qwen3ForCausalLM``.

Runs on: driver, ranks, and anywhere an exported model is loaded (no torch).
Takes:   recipe section ``model``.
Gives:   ``standard``, see ``models/llama/standard.py``.
"""

from pipelines.models.llama.standard import standard

__all__ = ["standard"]
