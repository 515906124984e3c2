"""Recipes and platforms: what is right is read as it stands, what is wrong is named with its remedy, all at once."""

import json
import re
from pathlib import Path

import pytest
import yaml

from pipelines.config import Config, Platform, Recipe, content_hash, load_config, load_platform
from pipelines.config.datasets import PREPARE_SECTIONS
from pipelines.config.tasks import TASK_SECTIONS, ClassificationTask, LanguageTask
from pipelines.errors import ConfigError
from pipelines.models.cnn.settings import CnnModel
from pipelines.tasks.table import TASKS
from tests.support.example_data import example_config
from tests.support.readme import block

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "conf/recipes/gpt-demo.yaml"
PLATFORM = ROOT / "conf/platforms/local.yaml"


def faults(*overrides, recipe=RECIPE, platform=PLATFORM):
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, platform, list(overrides))
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


@pytest.mark.parametrize("recipe", sorted((ROOT / "conf/recipes").glob("*.yaml")), ids=lambda p: p.stem)
@pytest.mark.parametrize("platform", sorted((ROOT / "conf/platforms").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_runs_on_every_shipped_platform(recipe, platform):
    config = load_config(recipe, platform)
    assert config.recipe.name == recipe.stem
    assert Config.from_json(config.to_json()) == config


def settings_in(value, place=()):
    """The place of every setting."""
    if isinstance(value, list | tuple):
        return {found for one in value for found in settings_in(one, place)}
    if not isinstance(value, dict) or place == ("spark", "conf"):
        return {place}
    return {found for key, inner in value.items() for found in settings_in(inner, (*place, key))}


@pytest.mark.parametrize("path", ["recipes/gpt-demo.yaml", "platforms/local.yaml", "platforms/standalone.yaml",
                                  "platforms/kubernetes.yaml"])
def test_a_commented_file_names_every_setting_of_its_kind_and_says_what_each_is(path):
    recipe, text = path.startswith("recipes"), (ROOT / "conf" / path).read_text(encoding="utf-8")
    config = load_config(ROOT / "conf" / path, PLATFORM) if recipe else load_config(RECIPE, ROOT / "conf" / path)
    every = settings_in((config.recipe if recipe else config.platform).model_dump(exclude={"name"}))
    assert settings_in(yaml.safe_load(text)) - {("name",)} == every
    lines = [line for line in text.splitlines() if re.match(r" +(- )?\w+:", line)]
    assert len(lines) > 20
    assert [line for line in lines if "#" not in line and re.search(r":\s*\S", line)] == []


def test_readme_names_every_setting_of_images_with_its_default_and_says_what_each_is():
    text = block("Images", 0).text
    given = yaml.safe_load(text)
    recipe = Recipe.model_validate({"name": "x", "train": {"steps": 1}, **given})
    assert settings_in(given["prepare"]) == settings_in(recipe.prepare.model_dump())
    plain = {"kind": "images", "inputs": [{"path": "photos/"}]}
    assert Recipe.model_validate({"name": "x", "train": {"steps": 1}, "prepare": plain}) == recipe
    assert [line for line in text.splitlines() if re.match(r" +\w+: \S", line) and "#" not in line] == [
        "  kind: images", "      pattern: null", "      exclude: []"]


def test_readmes_sections_for_a_model_of_images_are_accepted(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: x\nprepare: {kind: images, inputs: [{path: photos/}]}\ntrain: {steps: 100}\n"
                      + block("Models of images", 0).text)
    found = load_config(recipe, PLATFORM).recipe
    assert (found.model.kind, found.optimizer.nesterov, found.schedule.kind, found.data.augment.shift_pixels) == (
        "resnet", True, "one_cycle", 4)


def test_splits_of_images_that_contradict_themselves_are_refused():
    def told(split):
        prepare = f"prepare={{kind: images, inputs: [{{path: x}}], split: {split}}}"
        return faults(prepare)[0]

    assert "both numbers of rows and fractions" in told("{validation_rows: 3, test_fraction: 0.1}")
    assert "is given without validation_rows" in told("{test_rows: 3}")
    assert "numbers of rows are given, but kind is 'folder'" in told("{kind: folder, validation_rows: 3}")
    assert "leave nothing to train on" in told("{validation_fraction: 0.5, test_fraction: 0.5}")
    assert "0: nothing would be validated" in told("{validation_fraction: 0}")
    table = "prepare={kind: images, inputs: [{path: x, format: petastorm}], split: {kind: folder}}"
    assert "inputs.0 is a petastorm, whose rows lie in no folder" in faults(table)[0]


def test_a_key_unknown_to_one_kind_is_told_with_that_kinds_keys():
    assert "did you mean 'resize'?" in faults("prepare={kind: images, inputs: [{path: x}], resise: crop}")[0]
    assert "known: " not in faults("model.widht=3")[0]


def test_recipe_and_platform_share_no_section():
    config = load_config(RECIPE, PLATFORM)
    assert not set(type(config.recipe).model_fields) & set(type(config.platform).model_fields)


def test_an_override_reaches_either_file():
    config = load_config(RECIPE, PLATFORM, ["train.steps=7", "layout.num_replicas=4", "optimizer.learning_rate=3e-4",
                                            "schedule.warmup_steps=2", "prepare.inputs.0.pattern=*.txt",
                                            "spark.conf.spark.executor.memory=3g"])
    assert (config.recipe.train.steps, config.platform.layout.num_replicas) == (7, 4)
    assert config.recipe.optimizer.learning_rate == 3e-4
    assert config.recipe.prepare.inputs[0].pattern == "*.txt"
    assert config.platform.spark.conf["spark.executor.memory"] == "3g"


def test_all_faults_are_reported_together_with_their_place():
    lines = faults("layout.num_replics=2", "train.steps=many", "prepare.tokeniser.kind=bpe", "model.width=-1")
    assert sorted(lines) == [
        "layout.num_replics: unknown key (--set); did you mean 'num_replicas'?",
        "model.width: -1 is not accepted: at least 1 is wanted (--set)",
        "prepare.tokeniser: unknown key (--set); did you mean 'tokenizer'?",
        "train.steps: 'many' is not accepted: a whole number is wanted (--set)"]


def test_a_kind_that_there_is_not_is_told_with_those_that_there_are():
    assert faults("model.kind=gtp") == ["model.kind: 'gtp' is not accepted (--set); did you mean 'gpt'?"]
    assert faults("model.kind=7") == [
        "model.kind: '7' is not accepted (--set); known: cnn, factory, from, gpt, llama, qwen3, resnet"]


@pytest.mark.parametrize(("setting", "line", "said"), [
    ("layout: {cut: deep}", 1, "layout.cut: 'deep' is not accepted: one of 'cost' or 'parameters' is wanted"),
    ("spark:\n  conf: {spark.ui.enabled: [1]}", 2, "spark.conf.spark.ui.enabled: [1] is not accepted: a text is wanted"),
    ("spark:\n  conf:\n    spark.ssl.keyPassword: [hush]", 3, "spark.conf.spark.ssl.keyPassword: ***** is not accepted"),
    ("# first\nlayout:\n  threads_per_rank: yes", 3, "layout.threads_per_rank: True is not accepted: a number is wanted"),
    ("layout:\n  device: tpu", 2, "layout.device: 'tpu' is not accepted: one of 'cpu' or 'cuda' is wanted"),
    ("launch: 7", 1, "launch: 7 is not accepted: a mapping of settings is wanted"),
    ("layout: {num_replicas: 0}", 1, "layout.num_replicas: 0 is not accepted: use a number from 1 on, or auto"),
    ("storage: {root: 's3:/bucket/lake'}", 1, "storage.root: 's3:/bucket/lake' is not accepted: names no bucket"),
    ("storage: {root: 's3://me:word@bucket/lake'}", 1, "storage.root: 's3://*****@bucket/lake' is not accepted: has a user"),
    ("storage: {root: 's3://b', options: {key: k, client_kwargs: {aws_secret_access_key: s}}}", 1,
     "storage.options: ***** is not accepted: key, aws_secret_access_key: secrets are never stored"),
    ("storage: {root: 's3://b', options: {endpoint_url: 'http://me:word@host:9000'}}", 1,
     "storage.options: ***** is not accepted: endpoint_url: secrets are never stored"),
    ("storage: {root: 'abfs://b', options: {connection_string: 'AccountName=a', more: [{x: 'AccountKey=abc'}]}}", 1,
     "storage.options: ***** is not accepted: connection_string, x: secrets are never stored"),
])
def test_a_value_that_does_not_fit_is_told_in_words_with_its_file_and_line(tmp_path, setting, line, said):
    platform = tmp_path / "mine.yaml"
    platform.write_text(setting)
    (fault,) = faults(platform=platform)
    assert fault.startswith(said)
    assert fault.endswith(f"({platform}, line {line})")


NUMBERS = [  # every setting that is a number
    f"{section}.{name}"
    for sections in (Recipe, Platform) for section, field in sections.model_fields.items()
    for name, inner in getattr(field.annotation, "model_fields", {}).items()
    if {"int", "float"} & set(re.findall(r"\w+", str(inner.annotation))) and name != "conf"]


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_bounds(key):
    for value in ("9" * 40, "-" + "9" * 40, ".inf", ".nan"):  # else it would overflow where it is used
        assert any(line.startswith(f"{key}: ") for line in faults(f"{key}={value}")), value


@pytest.mark.parametrize("key", ["train.steps", "train.epochs", "data.num_lanes", "launch.start_timeout_s"])
def test_a_number_that_no_clock_or_table_holds_is_refused(key):
    assert any(line.startswith(f"{key}: ") and "at most" in line for line in faults(f"{key}=99999999999999999999"))


def test_the_divisors_that_a_remedy_names_are_found_without_counting_to_them():
    (line,) = faults("train.global_batch_samples=2147483647")
    assert line == ("train.global_batch_samples: 2147483647 is not a multiple of data.num_lanes (16); use 2147483632 or "
                    "2147483648, or data.num_lanes 1 or 2147483647")


@pytest.mark.parametrize(("override", "message"), [
    ("layout.num_replicas=3", "layout.num_replicas: 3 does not divide data.num_lanes (16); use 1, 2, 4, 8 or 16"),
    ("train.global_batch_samples=40", "train.global_batch_samples: 40 is not a multiple of data.num_lanes (16); use 32 or 48"),
    ("train.epochs=2", "train.steps, train.epochs: both are given; give exactly one"),
    ("train.steps=null", "train.steps, train.epochs: neither is given; give exactly one"),
    ("train.best_by=top5_accuracy", "train.best_by: 'top5_accuracy' is no metric by which a model of prepare.kind text is "
     "chosen; use loss or accuracy"),
    ("model={kind: gpt, num_heads: 5, width: 192}", "model.num_heads: 5 does not divide model.width (192)"),
    ("schedule.warmup_steps=120", "schedule.warmup_steps: 120 is not below train.steps (120)"),
    ("spark.conf={spark.dynamicAllocation.enabled: true}", "spark.conf.spark.dynamicAllocation.enabled: true"),
    ("trane.steps=1", "--set trane.steps=1: there is no section 'trane'; did you mean 'train'?"),
    ("train.steps", "--set train.steps: is not of the form key.path=value"),
    ("name=No Spaces", "name: 'No Spaces' is not accepted"),
    ("prepare.inputs=[{path: 's3a://bucket/texts', exclude: [old]}]", "prepare.inputs.0.exclude: leaves files out of local"),
    ("optimizer.learning_rate=.nan", "optimizer.learning_rate: nan is not accepted"),
    ("prepare.inputs=[]", "prepare.inputs: [] is not accepted"),
    ("prepare.inputs.0.path=s3a://key:hush@bucket/x", "prepare.inputs.0.path: 's3a://*****@bucket/x' is not accepted"),
])
def test_a_contradiction_names_its_place_value_and_remedy(override, message):
    assert any(line.startswith(message) for line in faults(override))


def test_a_missing_file_and_a_file_that_is_no_mapping_are_named(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("- a\n- b\n")
    lines = faults(recipe=tmp_path / "none.yaml", platform=wrong)
    assert lines[0].startswith(f"--recipe {tmp_path}/none.yaml: No such file")
    assert lines[1] == f"--platform {wrong}: holds a list, not a mapping of sections"


@pytest.mark.parametrize("content", ["name: !!python/object/apply:os.system ['touch {marker}']", "name: [", "a: 1\na: 2"])
def test_yaml_with_tags_faults_or_double_keys_is_refused_and_never_run(tmp_path, content):
    marker, recipe = tmp_path / "ran", tmp_path / "recipe.yaml"
    recipe.write_text(content.replace("{marker}", str(marker)))
    (line,) = faults(recipe=recipe)
    assert "is not plain YAML" in line
    assert not marker.exists()


def test_paths_with_spaces_and_other_scripts_are_taken_as_they_are(tmp_path):
    folder = tmp_path / "mit Leerzeichen, 日本語"
    folder.mkdir()
    recipe = folder / "réçette.yaml"
    recipe.write_text(RECIPE.read_text())
    config = load_config(recipe, PLATFORM, [f"prepare.inputs=[{{path: '{folder}'}}]"])
    assert config.recipe.prepare.inputs[0].path == str(folder)


def test_a_hash_changes_with_any_setting_and_only_then():
    first = load_config(RECIPE, PLATFORM).recipe
    again = load_config(RECIPE, PLATFORM).recipe
    other = load_config(RECIPE, PLATFORM, ["prepare.sequence_length=128"]).recipe
    first, again, other = (content_hash(recipe.prepare.model_dump(mode="json")) for recipe in (first, again, other))
    assert first == again != other


def test_a_platform_can_be_read_alone():
    assert load_platform(PLATFORM, ["layout.num_replicas=1"]).layout.num_replicas == 1
    with pytest.raises(ConfigError, match="num_replica"):
        load_platform(PLATFORM, ["layout.num_replica=1"])


def test_the_recipe_of_the_classic_network_is_that_of_the_well_known_example():
    recipe = load_config(ROOT / "conf/recipes/mnist-cnn.yaml", PLATFORM).recipe
    assert (recipe.model.kind, recipe.optimizer.kind, recipe.optimizer.learning_rate, recipe.optimizer.momentum) == (
        "cnn", "sgd", 0.01, 0.9)
    assert (recipe.train.global_batch_samples, recipe.train.epochs, recipe.train.best_by) == (64, 10, "accuracy")
    assert recipe.model == CnnModel()  # 32 and 64 channels, 128 values, dropouts of 0.25 and 0.5


def test_the_task_is_that_of_the_data_unless_it_is_said():
    images = "prepare={kind: images, inputs: [{path: x}]}"
    assert load_config(RECIPE, PLATFORM, ["task={sample_tokens: 3}"]).recipe.task == LanguageTask(sample_tokens=3)
    found = [load_config(RECIPE, PLATFORM, [images, *said]).recipe.task
             for said in (["task={}"], ["task={kind: classification}"])]
    assert found == [ClassificationTask()] * 2
    assert faults(images, "task={kind: language}") == [
        "task.kind: 'language', but the data of prepare.kind images is for classification; use classification, or leave it out"]
    assert faults(images, "task={sample_tokens: 0}") == ["task.sample_tokens: unknown key (--set); known: kind"]
    assert faults("task={kind: langauge}") == ["task.kind: 'langauge' is not accepted (--set); did you mean 'language'?"]
    assert faults("task.sample_token=3") == ["task.sample_token: unknown key (--set); did you mean 'sample_tokens'?"]
    assert faults("task=3")[0].startswith("task: 3 is not accepted: a mapping of settings is wanted")


def test_every_kind_of_data_is_for_a_task_that_there_is():
    assert {section.task for section in PREPARE_SECTIONS.values()} == TASK_SECTIONS.keys() == TASKS.keys()


def test_a_key_that_has_moved_is_told_with_its_new_place():
    assert faults("train.sample_tokens=3") == ["train.sample_tokens: unknown key (--set); it is task.sample_tokens now"]


@pytest.mark.parametrize("kind", ["text", "images"])
def test_the_recipe_of_a_run_from_before_the_section_task_is_read_as_it_was_meant(kind):
    config = example_config(prepare={"kind": kind, "inputs": [{"path": "x"}]})
    saved = json.loads(config.to_json())
    del saved["recipe"]["task"]
    saved["recipe"]["train"] |= {"sample_prompt": "a", "sample_tokens": 0}
    assert Config.from_json(json.dumps(saved)) == config
