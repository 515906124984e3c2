"""The recipe with which tests start whole jobs: a language model that learns something in a second.

Runs on: the machine of the tests.
Takes:   where its texts are; how long it trains.
Gives:   ``tiny_recipe``, the content of a file.
"""

from __future__ import annotations


def tiny_recipe(inputs: str, *, steps: int = 12, evaluate_every: int = 6, layers: int = 2) -> str:
    """
    Args:
        inputs: as YAML has it.
    """
    return f"""
name: tiny
prepare:
  inputs: [{{path: {inputs}, pattern: "*.txt"}}]
  split: {{validation_fraction: 0.2}}
  tokenizer: {{kind: bytes}}
  sequence_length: 32
  rows_per_row_group: 16
data: {{num_lanes: 4}}
model: {{num_layers: {layers}, num_heads: 2, width: 32}}
schedule: {{warmup_steps: 2}}
train: {{global_batch_samples: 8, steps: {steps}, evaluate_every_steps: {evaluate_every}}}
task: {{sample_prompt: "the", sample_tokens: 20}}
"""
