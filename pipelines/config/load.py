"""Recipe and platform files, ``--set`` overrides, and every fault in them reported together.

Runs on: driver (ranks read the resolved config that the driver saved with the run).
Takes:   paths of two YAML files and overrides such as ``optimizer.learning_rate=3e-4``.
Gives:   ``Config``; or ``ConfigError`` naming every faulty key by its dotted path.
"""

from __future__ import annotations

import hashlib
import json
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipelines.config.checks import contradictions
from pipelines.config.datasets import ImageInput, InputPath, PrepareSection, TextPrepare, Tokenizer
from pipelines.config.models import ModelSection
from pipelines.config.platform import Layout, Platform
from pipelines.config.predictions import Predict, PredictFile
from pipelines.config.recipe import Recipe
from pipelines.config.settings_file import SettingsFile, apply_override
from pipelines.config.wording import faults_of
from pipelines.errors import ConfigError, SparkringError


@dataclass(frozen=True)
class Config:
    """A checked recipe on a checked platform."""

    recipe: Recipe
    platform: Platform

    def with_layout(self, layout: Layout) -> Config:
        """The same on another layout."""
        return Config(self.recipe, self.platform.model_copy(update={"layout": layout}))

    def to_json(self) -> str:
        """For the ranks and for people; the values of Spark's secret settings are masked (``config/secrets.py``)."""
        return json.dumps({"recipe": self.recipe.model_dump(mode="json"),
                           "platform": self.platform.model_dump(mode="json")}, indent=2)

    @staticmethod
    def from_json(text: str) -> Config:
        saved = json.loads(text)
        return Config(Recipe.model_validate(_as_today(saved["recipe"])), Platform.model_validate(saved["platform"]))


def content_hash(settings: Mapping[str, Any]) -> str:
    """16 hex digits that change when any of the settings does."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def load_config(recipe_path: str | Path, platform_path: str | Path, overrides: list[str] | None = None) -> Config:
    """Reads both files, applies the overrides and checks everything.

    Raises:
        ConfigError: with one fault per line: files, unknown keys, types, contradictions.
    """
    faults: list[SparkringError] = []
    recipe_file = SettingsFile.read(Path(recipe_path), "--recipe", faults)
    platform_file = SettingsFile.read(Path(platform_path), "--platform", faults)
    if faults:
        raise ConfigError(faults)
    for override in overrides or []:
        apply_override([(recipe_file, Recipe.model_fields), (platform_file, Platform.model_fields)], override, faults)
    recipe, platform = _typed(Recipe, recipe_file, faults), _typed(Platform, platform_file, faults)
    if recipe is not None and platform is not None:
        faults.extend(contradictions(recipe, platform))
    if faults or recipe is None or platform is None:
        raise ConfigError(faults)
    return Config(_expand_paths(recipe), platform)


def load_platform(platform_path: str | Path | None, overrides: list[str] | None = None) -> Platform:
    """The platform alone, for commands that train nothing; without a file, its defaults.

    Raises:
        ConfigError: with one fault per line.
    """
    faults: list[SparkringError] = []
    file = SettingsFile(Path()) if platform_path is None else SettingsFile.read(Path(platform_path), "--platform", faults)
    for override in overrides or []:
        apply_override([(SettingsFile(Path()), Recipe.model_fields), (file, Platform.model_fields)], override, faults)
    platform = _typed(Platform, file, faults)
    if faults or platform is None:
        raise ConfigError(faults)
    return platform


def load_predict(platform_path: str | Path, overrides: list[str] | None = None) -> tuple[Platform, Predict]:
    """The platform, and how a model is to be asked, which is on the command line alone.

    Raises:
        ConfigError: with one fault per line.
    """
    faults: list[SparkringError] = []
    file, asked = SettingsFile.read(Path(platform_path), "--platform", faults), SettingsFile(Path())
    for override in overrides or []:
        apply_override([(file, Platform.model_fields), (asked, PredictFile.model_fields)], override, faults)
    platform, predict = _typed(Platform, file, faults), _typed(PredictFile, asked, faults)
    if faults or platform is None or predict is None:
        raise ConfigError(faults)
    return platform, predict.predict


SectionT = TypeVar("SectionT", bound=BaseModel)


def _typed(model: type[SectionT], file: SettingsFile, faults: list[SparkringError]) -> SectionT | None:
    """The typed settings, or None with every fault appended."""
    try:
        return model.model_validate(file.content)
    except ValidationError as error:
        faults += faults_of(error, model, file.where)
        return None


def _as_today(saved: dict[str, Any]) -> dict[str, Any]:
    """A recipe as runs of before saved it: a language's samples lay in ``train``, of images too, where they meant nothing."""
    train = dict(saved.get("train", {}))
    samples = {key: train.pop(key) for key in ("sample_prompt", "sample_tokens") if key in train}
    of_language = samples and saved["prepare"].get("kind") != "images"
    return {**saved, "train": train, **({"task": samples} if of_language else {})}


def _expand_paths(recipe: Recipe) -> Recipe:
    """Replaces ``${PYTHON_STDLIB}`` and ``~`` in input paths; the folder that a model goes on from is absolute, and its
    tokenizer that of the data where no other one is given."""
    def expand(path: str) -> str:
        path = path.replace("${PYTHON_STDLIB}", sysconfig.get_paths()["stdlib"])
        return str(Path(path).expanduser()) if path.startswith("~") else path

    def expanded(source: InputPath) -> InputPath:
        belonging = {"labels": expanded(source.labels)} if isinstance(source, ImageInput) and source.labels is not None else {}
        return source.model_copy(update={"path": expand(source.path), **belonging})

    inputs = tuple(map(expanded, recipe.prepare.inputs))
    model = recipe.model.with_paths(lambda path: path if ":/" in path else str(Path(path).expanduser().absolute()))
    prepare = recipe.prepare.model_copy(update={"inputs": inputs, **_tokenizer_of(model, recipe.prepare)})
    return recipe.model_copy(update={"prepare": prepare, "model": model})


def _tokenizer_of(model: ModelSection, prepare: PrepareSection) -> dict[str, Tokenizer]:
    """Weights are worth nothing with other tokens than those that they were made for."""
    if model.origin is None or not isinstance(prepare, TextPrepare) or "tokenizer" in prepare.model_fields_set:
        return {}
    return {"tokenizer": Tokenizer(path=f"{model.origin.rstrip('/')}/tokenizer.json")}
