"""ResNet: its sizes, its plan, which micro-batches fit its groups."""

import pytest
import torch

from pipelines.errors import ConfigError
from pipelines.models.build import build_model, fill_model, sketch_model
from pipelines.models.resnet.facts import facts as resnet_facts
from pipelines.models.resnet.settings import ResnetModel
from pipelines.plan.layout import Room, check_split, choose_layout
from pipelines.plan.memory import FeedFacts
from pipelines.prepare.images.image_rows import classification_facts
from pipelines.train.probe import facts_of
from tests.support.example_data import example_config
from tests.support.image_data import patterns

TINY = {"blocks": (1, 2), "width": 4, "norm_groups": 2}


def images(channels, size, num_classes):
    return classification_facts(channels=channels, height=size, width=size, classes=[str(i) for i in range(num_classes)],
                                mean=[0.5] * channels, deviation=[0.2] * channels, class_counts=[1] * num_classes)


def test_resnet_18_for_imagenet_has_its_well_known_11_7_million_parameters():
    assert resnet_facts(ResnetModel(stem="large"), images(3, 224, 1000)).parameters == 11_689_512


@pytest.mark.parametrize("normalisation", ["group", "batch"])
@pytest.mark.parametrize(("stem", "size"), [("small", 13), ("large", 33)])
def test_the_planned_facts_are_those_that_a_look_at_it_finds(normalisation, stem, size):
    settings, task = ResnetModel(**TINY, normalisation=normalisation, stem=stem, norm_samples=2), patterns(channels=3, size=size)
    model = build_model(settings, task.sizes, seed=0)
    planned = resnet_facts(settings, task)
    layers, value = list(model.layers.values()), torch.zeros(2, 3, size, size)
    for layer, facts in zip(layers, planned.layers, strict=True):
        value = layer(value)
        assert facts.parameters == sum(p.numel() for p in layer.parameters()), facts.name
        assert facts.output_bytes_per_sample == value[0].numel() * 4, facts.name
        assert facts.buffer_bytes == sum(b.nbytes for b in layer.buffers()), facts.name
    if normalisation == "group":
        found, entering_bytes = facts_of(model, task), 4 * 3 * size * size
        assert found.random_layers == found.mixing_layers == ()
        for one, other in zip(planned.layers, found.layers, strict=True):
            more = other.saved_bytes_per_sample - one.saved_bytes_per_sample  # what enters counts again, or twice
            assert -0.05 * one.saved_bytes_per_sample <= more <= 1.05 * entering_bytes + 300, one.name
            entering_bytes = one.output_bytes_per_sample


@pytest.mark.parametrize("normalisation", ["group", "batch"])
def test_a_rank_that_fills_only_its_layers_has_the_values_of_the_whole_model(normalisation):
    settings, sizes = ResnetModel(**TINY, normalisation=normalisation), patterns().sizes
    whole, part = build_model(settings, sizes, seed=3).state_dict(), sketch_model(settings, sizes, seed=3)
    fill_model(part, settings, 3, {"block_1", "head"})
    for name, value in part.state_dict().items():
        assert value.is_meta if name.startswith(("stem", "block_0", "block_2")) else torch.equal(value, whole[name])


def recipe_of(norm_samples, global_batch_samples=32, **changes):
    return example_config(model={"kind": "resnet", **TINY, "normalisation": "batch", "norm_samples": norm_samples},
                          train__global_batch_samples=global_batch_samples, **changes)


def test_groups_that_do_not_fit_a_lane_or_micro_batches_that_part_them_are_refused_with_sizes_that_fit():
    config = recipe_of(3)  # 32 samples of 4 lanes: 8 of each
    with pytest.raises(ConfigError, match=r"model.norm_samples: 3 does not divide the 8 samples .* use 2, 4 or 8"):
        check_split(resnet_facts(config.recipe.model, patterns()), config.recipe, config.platform.layout)
    config = recipe_of(4, layout__micro_batch_samples=6, layout__num_replicas=1)
    with pytest.raises(ConfigError, match=r"layout.micro_batch_samples: 6 samples end within a group of 4 .* use 4 or 8"):
        check_split(resnet_facts(config.recipe.model, patterns()), config.recipe, config.platform.layout)
    for size in (4, 8, 64):  # more than a replica's share is its share
        layout = config.platform.layout.model_copy(update={"micro_batch_samples": size})
        check_split(resnet_facts(config.recipe.model, patterns()), config.recipe, layout)


def test_an_automatic_layout_takes_micro_batches_of_whole_groups():
    config = recipe_of(8, layout="auto")
    facts = resnet_facts(config.recipe.model, patterns())
    choice = choose_layout(facts, FeedFacts(1000, 1, 200, 4, 10_000), config.recipe, config.platform.layout,
                           Room(4, 8 << 30, 100))
    assert all(each.layout.micro_batch_samples % 8 == 0 for each in choice.candidates)
