"""The settings of a run: those that differ from their defaults, and the rest.

Runs on: driver.
Takes:   an attempt's ``config.json`` (secrets are masked in it).
Gives:   plain JSON values by dotted key; None where the file is not there or is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipelines.config.platform import Platform
from pipelines.config.recipe import SECTION_KINDS, Recipe
from pipelines.config.section import Section
from pipelines.lake.store import Store

HEADLINE = ("train.global_batch_samples", "optimizer.kind", "optimizer.learning_rate", "train.seed", "train.precision")


def run_settings(store: Store, config: str) -> dict[str, Any] | None:
    """What an attempt was made with.

    Returns:
        ``headline``: the values that everybody asks for; ``changed``: {key: {value, default}} of recipe and platform, a
        default of None where there is none; ``unchanged``: {key: value}.
    """
    try:
        saved = json.loads(store.read(config))
        values = dict(_leaves(saved["recipe"])) | dict(_leaves(saved["platform"]))
    except (OSError, KeyError, TypeError, ValueError):
        return None
    defaults = dict(_defaults(Recipe)) | dict(_defaults(Platform))
    for section, kinds in SECTION_KINDS.items():  # each kind's own defaults, not those of the usual one
        usual = defaults.get(f"{section}.kind")
        kind = str(values.get(f"{section}.kind", usual))
        if kind in kinds and kind != usual:
            others = {key: value for key, value in defaults.items() if not key.startswith(f"{section}.")}
            defaults = others | dict(_defaults(kinds[kind], f"{section}.")) | {f"{section}.kind": usual}
    changed = {key: {"value": value, "default": defaults.get(key)} for key, value in values.items()
               if key not in defaults or value != defaults[key]}
    return {"headline": {key: values[key] for key in HEADLINE if key in values}, "changed": changed,
            "unchanged": {key: value for key, value in values.items() if key not in changed}}


def _leaves(settings: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested sections; lists are values, an empty section too."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value


def _defaults(model: type[Section], place: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, default as JSON has it) of the settings that have one."""
    for name, field in model.model_fields.items():
        if not field.is_required():
            default = field.get_default(call_default_factory=True)
            if isinstance(default, Section):
                yield from _leaves(default.model_dump(mode="json"), f"{place}{name}.")
            else:
                yield f"{place}{name}", json.loads(json.dumps(default))  # tuples are lists there
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _defaults(field.annotation, f"{place}{name}.")  # a section that must be given has defaults in it
