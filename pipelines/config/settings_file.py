"""A recipe or platform file as it stands, the ``--set`` overrides on it, and where each setting was given.

Runs on: driver.
Takes:   the path of a YAML file; overrides such as ``optimizer.learning_rate=3e-4``.
Gives:   ``SettingsFile``: its content as plain mappings, and for a faulty key the file and line, or ``--set``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from pipelines.config.platform import ALL_AUTO
from pipelines.config.secrets import masked_override
from pipelines.config.wording import suggestion
from pipelines.errors import SparkringError


@dataclass
class SettingsFile:
    """What a YAML file says, and where each of its settings was given."""

    path: Path
    content: dict[str, Any] = field(default_factory=dict)
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)  # of each key, from 1
    overridden: list[tuple[str, ...]] = field(default_factory=list)  # keys set on the command line

    @staticmethod
    def read(path: Path, option: str, faults: list[SparkringError]) -> SettingsFile:
        """Only plain YAML: a Python tag is refused, never run."""
        file, place = SettingsFile(path), f"{option} {path}"
        try:
            text = path.read_text(encoding="utf-8")
            content = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
            file.lines = dict(_lines_of(yaml.compose(text, Loader=yaml.SafeLoader)))
        except OSError as error:
            faults.append(SparkringError(place, error.strerror or str(error), "give the path of a YAML file"))
            return file
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            faults.append(SparkringError(place, f"is not plain YAML: {' '.join(str(error).split())}"))
            return file
        if isinstance(content, dict):
            file.content = content
        elif content is not None:
            faults.append(SparkringError(place, f"holds a {type(content).__name__}, not a mapping of sections"))
        return file

    def where(self, location: tuple[str, ...]) -> str:
        """Where a setting, or the nearest section around it, was given."""
        if any(location[: len(key)] == key or (key[: len(location)] == location and location not in self.lines)
               for key in self.overridden):
            return "--set"
        line = next((self.lines[key] for end in range(len(location), 0, -1) if (key := location[:end]) in self.lines), None)
        return f"{self.path}, line {line}" if line else str(self.path)


def _lines_of(node: yaml.Node | None, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Each key's and list entry's place in the file."""
    pairs = ([(key.value, key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
             if isinstance(node, yaml.MappingNode)
             else [(str(i), value, value) for i, value in enumerate(node.value)] if isinstance(node, yaml.SequenceNode) else [])
    for name, marked, value in pairs:
        yield (*at, name), marked.start_mark.line + 1
        yield from _lines_of(value, (*at, name))


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (the standard takes the last one silently)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def apply_override(files: list[tuple[SettingsFile, Collection[str]]], override: str, faults: list[SparkringError]) -> None:
    """Sets one dotted key, whose first part says in which file.

    Args:
        files: each with the sections that it may have.
    """
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    place = f"--set {masked_override(override)}"
    if not separator or not all(parts):
        faults.append(SparkringError(place, "is not of the form key.path=value", "for example --set train.steps=100"))
        return
    if parts[:2] == ["spark", "conf"] and len(parts) > 2:
        parts[2:] = [".".join(parts[2:])]  # Spark's own settings have dots in their names
    owner = next((file for file, sections in files if parts[0] in sections), None)
    if owner is None:
        known = [section for _, sections in files for section in sections]
        faults.append(SparkringError(place, f"there is no section {parts[0]!r}", suggestion(parts[0], known)))
        return
    try:
        value = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        if text[:1] in "[{!&\"'":
            faults.append(SparkringError(place, f"the value is not plain YAML: {' '.join(str(error).split())}"))
            return
        value = text  # such as *.py, which a shell user means as it stands
    owner.overridden.append(tuple(parts))
    at: Any = owner.content
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


