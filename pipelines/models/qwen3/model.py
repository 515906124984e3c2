"""Qwen3: a Llama whose section says that heads are normalised.

Runs on: ranks, and anywhere an exported model is loaded.
Takes:   ``tokens_BT``.
Gives:   ``logits_BTV``, see ``models/llama/model.py``.
"""

from pipelines.models.llama.model import fill, sketch

__all__ = ["fill", "sketch"]
