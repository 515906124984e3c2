"""A row of images, as the manifest says it."""

import json

from pipelines.lake.task_facts import TaskFacts, shard_schema
from pipelines.prepare.images.image_rows import classification_facts


def test_a_row_is_flat_pixels_and_a_label_within_the_classes_and_facts_survive_the_manifest():
    facts = classification_facts(channels=3, height=4, width=5, classes=["cat", "dog"], mean=[0.5, 0.4, 0.3],
                                 deviation=[0.1, 0.2, 0.3], class_counts=[7, 4])
    image, label = facts.columns
    assert (image.values, image.row_bytes, label.allowed) == (60, 60, (0, 1))
    assert str(shard_schema(facts.columns).field("image").type) == "list<item: uint8>"
    assert TaskFacts.of_json(json.loads(json.dumps(facts, default=vars))) == facts
