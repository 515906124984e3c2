"""What a user's model is made of: the source of its module and of all that it imports of the user's own, and its structure.

Runs on: the driver's look at a user's model, and ranks.
Takes:   the factory's module, imported, after its model has been run once, so that late imports are seen too.
Gives:   hashes by name, of which two are equal only where the code is, comments included.

The user's own is what comes neither from Python nor from an installed package nor from this project; of a factory that is
itself installed, its own package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import socket
import sys
import sysconfig
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.errors import RankFailedError
from pipelines.models.layered import LayeredModel, names_of

STRUCTURE = "layers and parameters"
_OURS = "pipelines"
_INSTALLED = {"site-packages", "dist-packages"}


def code_of(factory: str, model: LayeredModel) -> dict[str, str]:
    """Hashes of the sources, by module, and of the structure."""
    specs = own_modules(factory)
    return {**{name: _source_hash(spec) for name, spec in specs.items()}, STRUCTURE: _structure_hash(model)}


def own_modules(factory: str) -> dict[str, ModuleSpec]:
    """The imported modules that are the user's own, by name."""
    package = factory.partition(":")[0].partition(".")[0]
    specs = [module.__spec__ for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    # by the name that a module was found under: a program's own is __main__ to itself
    return {spec.name: spec for spec in sorted((s for s in specs if s is not None), key=lambda spec: spec.name)
            if spec.has_location and spec.origin
            and (spec.name.partition(".")[0] == package or _is_own(spec.name, Path(spec.origin)))}


def own_files(factory: str) -> list[Path]:
    """The files that hold those modules; of modules in an archive, the archive."""
    return sorted({Path(getattr(spec.loader, "archive", None) or str(spec.origin)) for spec in own_modules(factory).values()})


def check_code_as_planned(factory: str, known: Mapping[str, str], model: LayeredModel) -> None:
    """Raises RankFailedError where a user's model is not made of the code that the driver looked at, which is ``known``."""
    if differences := _differing(known, model):
        raise RankFailedError("model.factory", f"{factory} on {socket.gethostname()} is not what the driver looked at "
                              f"({', '.join(differences)})", "have the same version on all hosts, or give it with --py-files; "
                              "where it was edited meanwhile, repeat the command")


def _differing(known: Mapping[str, str], model: LayeredModel) -> list[str]:
    """What is not as it was known, in words; none where the code is the same."""
    words = []
    for name, expected in known.items():
        found = _structure_hash(model) if name == STRUCTURE else _hash_of_module(name)
        if found != expected:
            words.append(f"{name} {'is missing' if found is None else 'differs'}")
    return words


def _is_own(name: str, origin: Path) -> bool:
    top = name.partition(".")[0]
    return (top not in sys.stdlib_module_names and top != _OURS and not _INSTALLED & set(origin.parts)
            and not origin.is_relative_to(sysconfig.get_paths()["stdlib"]))


def _hash_of_module(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # its package is missing, or has no place
        return None
    return None if spec is None else _source_hash(spec)


def _source_hash(spec: ModuleSpec) -> str:
    loader: Any = spec.loader  # of files and of zip archives alike
    return hashlib.sha256(loader.get_data(spec.origin)).hexdigest()


def _structure_hash(model: LayeredModel) -> str:
    state = [[names, list(value.shape), str(value.dtype), value.requires_grad]
             for value, names in names_of(model.named_state()).items()]
    return hashlib.sha256(json.dumps([list(model.layers), state]).encode()).hexdigest()
