"""Pydantic's faults said so that a user knows what to change.

Runs on: driver.
Takes:   a ``ValidationError`` and where each setting was given.
Gives:   one ``SparkringError`` per refused setting: its dotted place, the value, what is wanted, the file and line.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from pipelines.config.recipe import SECTION_KINDS
from pipelines.config.secrets import MASK, is_secret, masked_settings, masked_text
from pipelines.errors import SparkringError

_WANTED = {
    "greater_than": "more than {gt}", "greater_than_equal": "at least {ge}", "less_than": "less than {lt}",
    "less_than_equal": "at most {le}", "literal_error": "one of {expected}", "finite_number": "a finite number",
    "string_pattern_mismatch": "a text of the form {pattern}", "too_short": "at least {min_length} of them",
    "string_too_short": "a text that is not empty"}
_MOVED = {f"train.{key}": f"task.{key}" for key in ("sample_prompt", "sample_tokens")}  # keys of before
_FAMILIES = {  # by the first word of pydantic's name of the fault, such as int_parsing
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "a text", "tuple": "a list",
    "list": "a list", "dict": "a mapping", "model": "a mapping of settings"}


def faults_of(error: ValidationError, model: type[BaseModel], where: Callable[[tuple[str, ...]], str]) -> list[SparkringError]:
    """Each refused setting once.

    Args:
        model: the recipe's or the platform's. where: in which file and line a setting was given.
    """
    found = error.errors(include_url=False)
    faults: dict[str, SparkringError] = {}  # by place: a value may fit none of several types
    for fault in found:
        if any(len(other["loc"]) > len(fault["loc"]) and other["loc"][: len(fault["loc"])] == fault["loc"] for other in found):
            continue  # it only says that a fault inside it is one
        # a part in brackets says which of several types was tried
        location = [part for part in map(str, fault["loc"]) if "[" not in part]
        kind = None
        if location[1:2] and location[1] in SECTION_KINDS.get(location[0], ()):
            kind = location.pop(1)  # which of the kinds was checked, not a key
        if location[:2] == ["spark", "conf"]:
            del location[3:]  # which of the types was tried
        if fault["type"] == "union_tag_invalid":  # of a section that comes in several kinds
            location.append("kind")
        said = _said(SECTION_KINDS[location[0]][kind] if kind else model, location, fault, where(tuple(location)), kind)
        faults.setdefault(said.place, said)
    return list(faults.values())


def suggestion(given: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, else all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _said(model: type[BaseModel], location: list[str], fault: Any, where: str, kind: str | None) -> SparkringError:
    """``model``: the class that holds the setting, of a section of a ``kind`` that one's."""
    place = ".".join(location) or model.__name__.lower()
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, location[1 if kind else 0 : -1])
        remedy = f"it is {_MOVED[place]} now" if place in _MOVED else suggestion(location[-1], known)
        return SparkringError(place, f"unknown key ({where})", remedy)
    if fault["type"] == "union_tag_invalid":
        return SparkringError(place, f"{fault['ctx']['tag']!r} is not accepted ({where})",
                              suggestion(fault["ctx"]["tag"], SECTION_KINDS[location[0]]))
    if fault["type"] == "missing":
        return SparkringError(place, f"is required and not given ({where})")
    return SparkringError(place, f"{_shown(place, fault['input'])} is not accepted: {_wanted(fault)} ({where})")


def _shown(place: str, value: Any) -> str:
    """The refused value, short and without secrets."""
    if (place.startswith("spark.") and is_secret(place)) or place.startswith("storage.options"):  # by names of any library
        return MASK
    return masked_text(reprlib.repr(masked_settings(value) if isinstance(value, dict) else value))


def _wanted(fault: Any) -> str:
    kind, limits = fault["type"], fault.get("ctx", {})
    if kind == "value_error":
        return str(limits["error"])
    wanted = _WANTED[kind].format(**limits) if kind in _WANTED else _FAMILIES.get(kind.split("_")[0])
    return f"{wanted} is wanted" if wanted else str(fault["msg"])


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
    return [field.alias or name for name, field in section.model_fields.items()]
