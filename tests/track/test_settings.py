"""A run's settings beside their defaults, whichever kind of model it has."""

from pipelines.lake.store import FolderStore
from pipelines.track.settings import run_settings
from tests.support.example_data import example_config


def test_a_users_model_is_not_held_against_the_defaults_of_a_gpt(tmp_path):
    config = example_config(model={"factory": "my_model:build", "width": 128})
    store = FolderStore(tmp_path)
    store.put("config.json", config.to_json())
    settings = run_settings(store, "config.json")
    assert {key: value for key, value in settings["changed"].items() if key.startswith("model.")} == {
        "model.kind": {"value": "factory", "default": "gpt"},
        "model.factory": {"value": "my_model:build", "default": None},
        "model.width": {"value": 128, "default": None}}  # the default width of a GPT
    assert not [key for key in settings["unchanged"] if key.startswith("model.")]
