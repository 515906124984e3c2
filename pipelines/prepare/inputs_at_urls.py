"""Inputs at URLs that Python reads, listed as local ones are.

Runs on: driver, without Spark.
Takes:   an input whose path is such a URL (``config/input_schemes.py``): of a file, a folder or a glob.
Gives:   ``list_at_url``: its files in the order of their names, read then by the code that reads local ones.

A key that is there wins over a glob that it looks like, ``*`` does not match what begins with a dot, and names are relative to
the folder, as on a disk. Folders are what their keys have in common; an empty one is nothing.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from glob import has_magic
from typing import Any, NamedTuple

from pipelines.config.datasets import InputPath
from pipelines.errors import DataError
from pipelines.lake.file_systems import failures, said, same_system, size_in, system_at, version_in
from pipelines.lake.object_store import ObjectStore
from pipelines.lake.store import Store
from pipelines.prepare.input_files import URL_REMEDY, InputFile
from pipelines.prepare.input_names import is_hidden, is_left_out

ANOTHER = "give a file, a folder or a glob that matches"
CHAIN = "::"
Infos = Mapping[str, Mapping[str, Any]]  # what a file system says of files, by their paths


class _Folder(NamedTuple):
    """Of an input: its URL without a glob, and the same as a path of the file system."""

    url: str
    path: str

    def url_of(self, path: str) -> str:
        """Of a file in it. The path alone may lack what the URL says, such as an account."""
        return self.url + path[len(self.path):]


def list_at_url(index: int, source: InputPath, lake: Store | None) -> list[InputFile]:
    """
    Raises:
        DataError: it holds no file, or the file system is not reached or refuses.
    """
    place, url = source.place(index), source.path
    _refuse_chain(place, url)
    with _reached(place, url):
        own = isinstance(lake, ObjectStore) and same_system(url, lake.url)
        options = lake.options if own and isinstance(lake, ObjectStore) else "{}"
        system, path = system_at(url, options)
        roots = _roots(system, path, place, url)
        ours = system_at(lake.url, options)[1] if own and isinstance(lake, ObjectStore) else None
        infos = {found: info for root, info in roots.items() for found, info in _files(system, root, info, source, ours)}
    if not infos:
        which = f" that match {source.pattern!r}" if source.pattern else ""
        raise DataError(place, f"{url!r} holds no files{which}", "give a folder that does, or another pattern")
    base = path.rstrip("/") if set(roots) == {path.rstrip("/")} else posixpath.commonpath(list(roots))
    folder = _folder(system, url, path)
    with _reached(place, url):
        files = [InputFile(index, folder.url_of(found), _name(found, base), size_in(info), version_in(info), options)
                 for found, info in infos.items()]
    for file in files:
        _refuse_chain(place, file.path)
    return sorted(files, key=lambda file: file.name)


def _refuse_chain(place: str, url: str) -> None:
    """It would be opened as several URLs, of which the last may be a path of this machine."""
    if CHAIN in url:
        raise DataError(place, f"{url!r} holds {CHAIN!r}, by which URLs are chained", "rename it, or leave it out")


@contextmanager
def _reached(place: str, url: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise DataError(place, f"{url!r} needs a package that is not installed ({error})",
                        "install it on every machine") from error
    except FileNotFoundError as error:
        raise DataError(place, f"{url!r} does not exist ({said(error)})", ANOTHER) from error
    except failures() as error:
        raise DataError(place, f"{url!r} cannot be read ({said(error)})", URL_REMEDY) from error


def _roots(system: Any, path: str, place: str, url: str) -> Infos:
    """The file or folder that the path names, or those that it matches as a glob."""
    try:
        return {path.rstrip("/"): system.info(path)}
    except FileNotFoundError:
        if not has_magic(path):
            raise
    fixed = _fixed(path)
    dotted = any(part.startswith(".") for part in path[len(fixed):].split("/"))
    matching: Infos = system.glob(path, detail=True)
    roots = {found.rstrip("/"): info for found, info in matching.items()
             if not is_hidden(posixpath.basename(found.rstrip("/")))
             and (dotted or not any(part.startswith(".") for part in found[len(fixed):].split("/")))}
    if not roots:
        raise DataError(place, f"{url!r} matches nothing", ANOTHER)
    return roots


def _fixed(path: str) -> str:
    """The folders before the first part that is a glob."""
    parts = path.split("/")
    return "/".join(parts[:next((at for at, part in enumerate(parts) if has_magic(part)), len(parts))])


def _files(system: Any, root: str, info: Mapping[str, Any], source: InputPath,
           ours: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The root itself where it is a file; else the files below it, without the lake that we write to."""
    if info["type"] == "file":
        yield root, info
        return
    found: Infos = system.find(root, detail=True)
    lake = f"{ours}/" if ours is not None and ours.startswith(f"{root}/") else None
    for path, about in found.items():
        *folders, name = path[len(root):].strip("/").split("/")
        if (about["type"] == "file" and not path.endswith("/") and (lake is None or not path.startswith(lake))
                and not any(is_left_out(part, source) for part in (*folders, name)) and fnmatch(name, source.pattern or "*")):
            yield path, about


def _folder(system: Any, url: str, path: str) -> _Folder:
    """What stands before the first part that may be a glob, in both."""
    fixed_url = url if not has_magic(path) else _fixed(url)
    fixed = str(system._strip_protocol(fixed_url))
    return _Folder(fixed_url.rstrip("/"), fixed.rstrip("/"))


def _name(path: str, base: str) -> str:
    return posixpath.basename(path) if path == base else posixpath.relpath(path, base)
