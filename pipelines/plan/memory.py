"""How much memory a rank will need, before it is started.

Runs on: driver (pure).
Takes:   the model's facts, where it is cut, schedule and micro-batches; what the feed holds.
Gives:   bytes at the peak of each segment's rank; tests hold them within 25 % of what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.config.optimizers import OptimizerSection
from pipelines.config.platform import Reader
from pipelines.config.recipe import Data
from pipelines.feed.lanes import LaneOrder
from pipelines.feed.read_ahead import StepRing, feed_bytes
from pipelines.lake.manifest import Manifest
from pipelines.plan.model_facts import FLOAT_BYTES, ModelFacts
from pipelines.plan.split_plan import SplitPlan

PROCESS_BYTES = 400 * 1024**2  # Python, torch, Horovod and the reader, before a model is there
WEIGHTS_AND_GRADIENTS = 2  # float32 values per parameter, beside those that the optimizer keeps


@dataclass(frozen=True)
class FeedFacts:
    """What the memory of a rank's feed follows from. Window and steps are the same on any number of replicas."""

    rows: int  # of training
    window_steps: int
    row_bytes: int
    largest_row_group_rows: int
    read_ahead_bytes: int

    @staticmethod
    def of(data: Data, global_batch_samples: int, reader: Reader, manifest: Manifest) -> FeedFacts:
        runs = [run for shard in manifest.shards("train") for run in shard.row_groups]
        row_group_rows = np.repeat([run.rows for run in runs], [run.length for run in runs])
        order = LaneOrder(row_group_rows, num_lanes=data.num_lanes, window_row_groups=data.window_row_groups,
                          shuffle=data.shuffle, global_batch_samples=global_batch_samples, seed=0)
        return FeedFacts(order.rows, order.max_window_steps, StepRing.row_bytes(manifest.task.columns),
                         max((run.rows for run in runs), default=0), reader.read_ahead_bytes)

    def held_bytes(self, samples_per_step: int) -> int:
        """At most, on a replica that takes so many samples a step."""
        return feed_bytes(self.window_steps, samples_per_step * self.row_bytes,
                          self.largest_row_group_rows * self.row_bytes, self.read_ahead_bytes)


def rank_bytes(facts: ModelFacts, feed: FeedFacts, split: SplitPlan, optimizer: OptimizerSection) -> list[int]:
    """Peak bytes of the rank of each segment. The first and the last one have a feed: inputs here, targets there."""
    held = feed.held_bytes(split.micro_batches * split.micro_batch_samples)
    return [PROCESS_BYTES + (held if segment in (0, split.num_segments - 1) else 0)
            + _model_bytes(facts, split, segment, optimizer) + _activation_bytes(facts, split, segment)
            for segment in range(split.num_segments)]


def _model_bytes(facts: ModelFacts, split: SplitPlan, segment: int, optimizer: OptimizerSection) -> int:
    layers = [facts.layers[i] for i in split.layers_of(segment)]
    parted = split.num_segments > 1
    held = sum(layer.parameters + (layer.tied_parameters if parted else 0) for layer in layers)
    constants = sum(layer.buffer_bytes for layer in layers)
    copies = WEIGHTS_AND_GRADIENTS + (1 if split.num_replicas > 1 else 0)  # buckets, while backward still writes
    kept = optimizer.values_kept(held, sum(layer.matrix_parameters for layer in layers))
    trained = FLOAT_BYTES * (copies * held + kept) + constants
    if not parted:
        return trained
    # before it has its own layers a rank has either the whole model's weights, or one layer after the other, being measured
    if facts.sketched:
        before = FLOAT_BYTES * 2 * max(layer.parameters for layer in facts.layers)
    else:
        before = FLOAT_BYTES * (facts.parameters + held) + sum(layer.buffer_bytes for layer in facts.layers)
    return max(trained, before)


def _activation_bytes(facts: ModelFacts, split: SplitPlan, segment: int) -> int:
    parts = [split.ranges[part] for part in split.parts_of(segment)]
    saved = sum(facts.layers[i].saved_bytes_per_sample for part in parts for i in part)
    in_flight = split.forwards_in_flight(segment)
    last = len(facts.layers) - 1
    output_bytes = facts.layers[last].output_bytes_per_sample
    if any(part.stop - 1 == last for part in parts):  # the loss: its gradient twice; stages hold on to the outputs
        saved_once = 2 * output_bytes + (in_flight * output_bytes if split.num_segments > 1 else 0)
    else:
        saved_once = 0
    travelling = 0
    if split.num_segments > 1:  # buffers for every micro-batch: activations in, gradients back
        travelling = sum((facts.layers[part.start - 1].output_bytes_per_sample if part.start else 0)
                         + (facts.layers[part.stop - 1].output_bytes_per_sample if part.stop - 1 < last else 0)
                         for part in parts) * split.micro_batches
    going_back = max(facts.layers[i].saved_bytes_per_sample for part in parts for i in part)  # gradients within one layer
    return split.micro_batch_samples * (saved * in_flight + saved_once + going_back + travelling)
