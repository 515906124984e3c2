"""Recipe and platform files, ``--set`` overrides, and every fault in them reported together.

Runs on: driver (ranks read the resolved config that the driver saved with the run).
Takes:   paths of two YAML files and overrides such as ``optimizer.learning_rate=3e-4``.
Gives:   ``Config``; or ``ConfigError`` naming every faulty key by its dotted path.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import sysconfig
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipelines.config.checks import contradictions
from pipelines.config.platform import ALL_AUTO, Layout, Platform
from pipelines.config.recipe import MODEL_KINDS, Recipe
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
        return json.dumps({"recipe": self.recipe.model_dump(mode="json"),
                           "platform": self.platform.model_dump(mode="json")}, indent=2)

    @staticmethod
    def from_json(text: str) -> Config:
        saved = json.loads(text)
        return Config(Recipe.model_validate(saved["recipe"]), Platform.model_validate(saved["platform"]))


def content_hash(section: BaseModel) -> str:
    """16 hex digits that change when any setting of the section does."""
    canonical = json.dumps(section.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def load_config(recipe_path: str | Path, platform_path: str | Path, overrides: list[str] | None = None) -> Config:
    """Reads both files, applies the overrides and checks everything.

    Raises:
        ConfigError: with one fault per line: files, unknown keys, types, contradictions.
    """
    faults: list[SparkringError] = []
    raw = {"recipe": _read_yaml(Path(recipe_path), "--recipe", faults),
           "platform": _read_yaml(Path(platform_path), "--platform", faults)}
    if faults:
        raise ConfigError(faults)
    for override in overrides or []:
        _apply_override(raw, override, faults)
    recipe = _validate(Recipe, raw["recipe"], faults)
    platform = _validate(Platform, raw["platform"], faults)
    if recipe is not None and platform is not None:
        faults.extend(contradictions(recipe, platform))
    if faults or recipe is None or platform is None:
        raise ConfigError(faults)
    return Config(_expand_paths(recipe), platform)


def load_platform(platform_path: str | Path, overrides: list[str] | None = None) -> Platform:
    """The platform alone, for commands that train nothing.

    Raises:
        ConfigError: with one fault per line.
    """
    faults: list[SparkringError] = []
    raw = {"recipe": {}, "platform": _read_yaml(Path(platform_path), "--platform", faults)}
    for override in overrides or []:
        _apply_override(raw, override, faults)
    platform = _validate(Platform, raw["platform"], faults)
    if faults:
        raise ConfigError(faults)
    return platform


def _read_yaml(path: Path, option: str, faults: list[SparkringError]) -> dict[str, Any]:
    """The file's mapping. Only plain YAML: a Python tag is refused, never run."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        faults.append(SparkringError(f"{option} {path}", error.strerror or str(error), "give the path of a YAML file"))
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        faults.append(SparkringError(f"{option} {path}", f"is not plain YAML: {' '.join(str(error).split())}"))
        return {}
    if content is None:
        return {}
    if not isinstance(content, dict):
        faults.append(SparkringError(f"{option} {path}", f"holds a {type(content).__name__}, not a mapping of sections"))
        return {}
    return content


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (the standard takes the last one silently)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _apply_override(raw: dict[str, Any], override: str, faults: list[SparkringError]) -> None:
    """Sets one dotted key; its first part says whether it is the recipe's or the platform's."""
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    place = f"--set {override}"
    if not separator or not all(parts):
        faults.append(SparkringError(place, "is not of the form key.path=value", "for example --set train.steps=100"))
        return
    if parts[:2] == ["spark", "conf"] and len(parts) > 2:
        parts[2:] = [".".join(parts[2:])]  # Spark's own settings have dots in their names
    owner = next((name for name, model in (("recipe", Recipe), ("platform", Platform))
                  if parts[0] in model.model_fields), None)
    if owner is None:
        known = [*Recipe.model_fields, *Platform.model_fields]
        faults.append(SparkringError(place, f"there is no section {parts[0]!r}", _suggest(parts[0], known)))
        return
    try:
        value = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        if text[:1] in "[{!&\"'":
            faults.append(SparkringError(place, f"the value is not plain YAML: {' '.join(str(error).split())}"))
            return
        value = text  # such as *.py, which a shell user means as it stands
    at: Any = raw[owner]
    for part, following in pairwise(parts):
        if isinstance(at, list) and part.isdigit() and int(part) < len(at):
            at = at[int(part)]
        elif isinstance(at, dict):
            if part == "layout" and at.get(part) == "auto":
                at[part] = dict(ALL_AUTO)
            elif not isinstance(at.get(part), (dict, list)):
                at[part] = [] if following.isdigit() else {}
            at = at[part]
        else:
            faults.append(SparkringError(place, f"{part!r} is not there to be set"))
            return
    last = parts[-1]
    if isinstance(at, list):
        if not last.isdigit() or int(last) >= len(at):
            faults.append(SparkringError(place, f"the list has {len(at)} entries", "set the whole list"))
            return
        at[int(last)] = value
    else:
        at[last] = value


def _validate(model: type[BaseModel], content: dict[str, Any], faults: list[SparkringError]) -> Any:
    """The typed model, or None with every fault appended."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False)
        for fault in found:
            if any(len(other["loc"]) > len(fault["loc"]) and other["loc"][:len(fault["loc"])] == fault["loc"]
                   for other in found):
                continue  # it only says that a fault inside it is one
            location = [str(part) for part in fault["loc"]]
            if location[0] == "model" and location[1:2] and location[1] in MODEL_KINDS:
                del location[1]  # which of the kinds was checked, not a key
            place = ".".join(location) or model.__name__.lower()
            if fault["type"] == "extra_forbidden":
                known = _known_keys(model, location[:-1])
                faults.append(SparkringError(place, "unknown key", _suggest(location[-1], known)))
            elif fault["type"] == "missing":
                faults.append(SparkringError(place, "is required and not given"))
            else:
                faults.append(SparkringError(place, f"{fault['input']!r} is not accepted: {fault['msg']}"))
        return None


def _known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    """Keys allowed in the section at a dotted location."""
    section: Any = model
    for part in location:
        if part.isdigit():
            continue
        annotation = section.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        section = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if section is None:
            return []
    return list(section.model_fields)


def _suggest(given: str, known: list[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def _expand_paths(recipe: Recipe) -> Recipe:
    """Replaces ``${PYTHON_STDLIB}`` and ``~`` in input paths."""
    def expand(path: str) -> str:
        path = path.replace("${PYTHON_STDLIB}", sysconfig.get_paths()["stdlib"])
        return str(Path(path).expanduser()) if path.startswith("~") else path

    inputs = tuple(source.model_copy(update={"path": expand(source.path)}) for source in recipe.prepare.inputs)
    return recipe.model_copy(update={"prepare": recipe.prepare.model_copy(update={"inputs": inputs})})
