"""What a rank has for each step: its replica's samples, or only which they are.

Runs on: ranks.
Takes:   config and plan of the attempt, the dataset, the rank's place.
Gives:   ``step_inputs``: step after step, from the first one on; ``share_of``, the replica's part of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipelines.config.load import Config
from pipelines.feed.augment import augmented
from pipelines.feed.batches import Batch, SampleOrder, Share, TrainingFeed
from pipelines.feed.sample_ids import batches_of_ids
from pipelines.lake.manifest import Manifest
from pipelines.plan.places import Place
from pipelines.plan.run_plan import RunPlan
from pipelines.train.loop import StepInput


def share_of(plan: RunPlan, place: Place) -> Share:
    return Share(plan.split.micro_batch_samples, place.replica_index, place.num_replicas)


@contextmanager
def step_inputs(config: Config, plan: RunPlan, manifest: Manifest, share: Share, place: Place, device: torch.device
                ) -> Iterator[Iterator[StepInput]]:
    """A rank that holds neither the first nor the last segment reads nothing."""
    recipe, dataset = config.recipe, plan.lake.store.below(plan.dataset)
    order = SampleOrder(recipe.data, recipe.train.seed, recipe.train.global_batch_samples)
    if not place.needs_samples:
        yield (StepInput(step // plan.steps_per_epoch, [ids], 0.0)
               for step, ids in enumerate(batches_of_ids(dataset, manifest, order, share)))
        return
    with TrainingFeed(dataset, manifest, config.platform.reader, order, share) as feed:
        settings, seed = recipe.data.augment, recipe.train.seed
        images = manifest.task.image_column

        def prepared(batch: Batch, epoch: int) -> Batch:
            return (batch if settings is None else augmented(batch, images, settings, seed, epoch)).to(device)

        yield (StepInput(step.epoch, [prepared(batch, step.epoch) for batch in step.micro_batches], step.data_wait_s)
               for step in feed)
