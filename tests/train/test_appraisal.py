"""A trained model on a split: the same figures and the same worst mistakes on any layout, and those of training."""

import json
import random

import pytest
import torch

from pipelines.errors import AlreadyRunningError, CheckpointError, DataError
from pipelines.feed.rows_by_id import rows_by_id
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.lake.runs import current_state
from pipelines.lake.task_facts import IMAGE_FILE
from pipelines.launch.evaluating import begin_evaluation
from pipelines.launch.evaluation_plan import plan_evaluation
from pipelines.launch.local import prepare_run
from pipelines.train.appraisal import MOST_SHOWN, Worst, worst_first
from tests.support.example_data import example_config, publish_example
from tests.support.image_data import PATTERN_CLASSES, publish_images
from tests.support.rank_processes import run_workers

CNN = {"kind": "cnn", "first_channels": 4, "second_channels": 4, "dense_width": 8}
SETTINGS = {"images": {"model": CNN, "train__steps": 2, "train__evaluate_every_steps": 2, "schedule__warmup_steps": 1},
            "text": {"train__steps": 2, "train__evaluate_every_steps": 2, "schedule__warmup_steps": 1}}


@pytest.fixture(scope="module", params=SETTINGS)
def trained(request, tmp_path_factory):
    """A lake with a run, its settings, its dataset."""
    lake = Lake.at(tmp_path_factory.mktemp(request.param))
    manifest = (publish_images if request.param == "images" else publish_example)(lake, validation_rows=29)
    run = prepare_run(lake, example_config(**SETTINGS[request.param]), manifest)
    run_workers(run)
    return lake, SETTINGS[request.param], manifest, run


def planned(trained, model="best", split="validation", **layout):
    lake, settings, manifest, run = trained
    return plan_evaluation(example_config(**settings, **layout), lake, current_state(run), manifest, model, split)


def evaluated(plan):
    begin_evaluation(plan, plan.ranks.attempt)
    run_workers(plan.folder)
    return json.loads(plan.folder.store.read(plan.folder.findings(0)))


@pytest.mark.parametrize("layout", [(1, 1), (2, 1), (4, 1), (1, 2), (1, 4), (2, 2)], ids=lambda layout: "{}x{}".format(*layout))
@pytest.mark.processes
def test_what_is_found_of_a_model_is_what_training_found_on_any_layout(trained, layout, tmp_path):
    lake, _, _, run = trained
    plan = planned(trained, layout__num_replicas=layout[0], layout__num_segments=layout[1], layout__micro_batch_samples=2)
    for path in (lake.root / plan.folder.key).glob("attempt-*"):
        path.rename(tmp_path / path.name)  # of another layout: the evaluation is the same one
    found = evaluated(plan)
    (recorded,) = [r for r in RecordTail(run.live(0).record(0)).new_records() if r["kind"] == "evaluation"]
    assert (found["samples"], found["step"], found["model"]) == (29, 2, "best")
    for name in ("loss", "accuracy", "macro_f1", "calibration_error", "perplexity"):
        assert (name in found) == (name in recorded)
        if name in found:
            assert found[name] == pytest.approx(recorded[name], rel=1e-5), name
    if "images" in str(lake.root):
        wrong = sum(each["samples"] for each in found["confusions"] if each["true_class"] != each["said_class"])
        assert wrong == round(29 * (1 - found["accuracy"])) > 0
        assert [each["class_name"] for each in found["classes"]] == list(PATTERN_CLASSES)
        assert sum(each["samples"] for each in found["classes"]) == 29
        matrix, table, pictures = found["exhibits"]
        assert sum(map(sum, matrix["counts"])) == 29 and len(table["rows"]) == 4
        assert len(pictures["pictures"]) == min(wrong, MOST_SHOWN)
        shown = [int(picture["caption"].partition("(")[2].partition("%")[0]) for picture in pictures["pictures"]]
        assert shown == sorted(shown, reverse=True)


@pytest.mark.parametrize("encoding", [IMAGE_FILE, None], ids=["files", "lists, as the first datasets of images have them"])
@pytest.mark.parametrize("trained", ["images"], indirect=True)
@pytest.mark.processes
def test_of_shards_that_hold_the_images_in_another_way_the_same_is_found(trained, encoding):
    lake, settings, _, run = trained
    encoded = publish_images(lake, validation_rows=29, encoding=encoding, name="files" if encoding else "lists")
    of_pixels, of_files = (evaluated(plan_evaluation(example_config(**settings), lake, current_state(run), manifest, "last",
                                                     "validation")) for manifest in (trained[2], encoded))
    assert of_files["dataset_name"] == encoded.name and of_files["samples"] == 29
    for name in ("loss", "accuracy", "classes", "confusions", "exhibits"):
        assert of_files[name] == of_pixels[name], name


def refused(error, match, trained, **wish):
    with pytest.raises(error, match=match):
        planned(trained, **wish)


@pytest.mark.processes
def test_what_cannot_be_evaluated_is_refused_in_words_with_what_there_is(trained):
    lake, _, _, run = trained
    refused(DataError, r"has no split test; use --split with one of: train \(37 rows\), validation \(29 rows\)", trained,
            split="test")
    weights = lake.root / lake.model(run.run_id, "last")
    weights.rename(weights.with_name("moved"))
    refused(CheckpointError, r"run example-\w+ \(completed\) has no last model; there is: best", trained, model="last")
    weights.with_name("moved").rename(weights)
    content = (weights / "model.safetensors").read_bytes()
    (weights / "model.safetensors").write_bytes(b"x" * 40)
    refused(CheckpointError, "is cut off, or no file of safetensors: 40 bytes", trained, model="last")
    (weights / "model.safetensors").write_bytes(content)


@pytest.mark.processes
def test_data_that_the_model_is_not_made_for_is_refused_with_the_difference(trained, tmp_path):
    _, settings, manifest, run = trained
    other = Lake.at(tmp_path)
    image = "images" in str(trained[0].root)
    data = {"another task": publish_example(other, name="a") if image else publish_images(other, name="a"),
            "another size": publish_images(other, name="b", size=16) if image else publish_example(other, name="b",
                                                                                                   sequence_length=8)}
    said = {"another task": "is for the task", "another size": "has (height 16|sequence_length 8), the model"}
    for what, dataset in data.items():
        refused(DataError, f"{said[what]}.*; give --dataset a recipe", (trained[0], settings, dataset, run))
    if image:
        manifest.task.facts["classes"].reverse()
        refused(DataError, r"has other classes, or in another order \(bottom, top, right, left\) than the model ", trained)
        manifest.task.facts["classes"].reverse()


@pytest.mark.processes
def test_a_run_that_still_trains_is_refused(trained):
    lake, settings, manifest, run = trained
    state = current_state(run)
    running = type(state)(**{**state.__dict__, "attempts": (state.newest.changed(status="running"),)})
    with pytest.raises(AlreadyRunningError, match="is still training, and its models are still replaced; wait for its end"):
        plan_evaluation(example_config(**settings), lake, running, manifest, "best", "validation")


def test_rows_come_in_the_order_asked_from_wherever_they_lie(tmp_path):
    manifest = publish_images(Lake.at(tmp_path))
    store = Lake.at(tmp_path).store.below("datasets/example/v1")
    whole = rows_by_id(store, manifest, "arrow", "train", range(37))
    some = rows_by_id(store, manifest, "arrow", "train", [36, 0, 11, 10])
    assert some.sample_ids_B.tolist() == [36, 0, 11, 10]
    assert torch.equal(some.fields["image"], whole.fields["image"][[36, 0, 11, 10]])


def test_the_worst_of_all_replicas_are_the_worst_of_the_whole_wherever_their_rows_were():
    draw = random.Random(1)
    badness = [draw.choice([0.0, 0.2, 0.5, 0.9]) for _ in range(200)]  # many are equally bad

    class Given:
        num_facts = 1

        def of(self, output, targets):
            return output[:, None]

    def seen(ids):
        worst = Worst(Given())
        for part in torch.tensor(ids).split(7):
            worst.see(torch.tensor([badness[i] for i in part], dtype=torch.float64), None, part)
        return worst

    expected = sorted((i for i in range(200) if badness[i]), key=lambda i: (-badness[i], i))[:MOST_SHOWN]
    halves = [seen(list(range(90))), seen(list(range(90, 200)))]
    slots = []
    for index, half in enumerate(halves):
        half.of_all(lambda flat: slots.append(flat.clone()), index, 2)
    together = [half.of_all(lambda flat: flat.copy_(slots[0] + slots[1]), index, 2) for index, half in enumerate(halves)]
    assert together[0] == together[1]
    assert [int(row[0]) for row in together[0]] == expected
    assert worst_first(torch.empty(0, 2)).tolist() == []
