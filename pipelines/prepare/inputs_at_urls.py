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
from pipelines.lake.file_systems import asked, failures, said, same_system, size_in, version_in
from pipelines.lake.object_store import ObjectStore
from pipelines.lake.store import Store
from pipelines.prepare.input_files import URL_REMEDY, InputFile
from pipelines.prepare.input_names import is_hidden, is_left_out

ANOTHER = "give a file, a folder or a glob that matches"
CHAIN = "::"
Infos = Mapping[str, Mapping[str, Any]]  # what a file system says of files, by their paths


class _Found(NamedTuple):
    """What an input's URL names, as paths of the file system."""

    infos: Infos  # of files
    base: str  # what their names are relative to
    fixed_path: str  # the URL's folders before the first part that may be a glob
    fixed_url: str  # the same; the path alone may lack what a URL says, such as an account

    def url_of(self, path: str) -> str:
        return self.fixed_url + path[len(self.fixed_path):]

    def name_of(self, path: str) -> str:
        return posixpath.basename(path) if path == self.base else posixpath.relpath(path, self.base)


class _NoMatchError(FileNotFoundError):
    """Of a glob."""


def list_at_url(index: int, source: InputPath, lake: Store | None) -> list[InputFile]:
    """
    Raises:
        DataError: it holds no file, or the file system is not reached or refuses.
    """
    place, url = source.place(index), source.path
    _refuse_chain(place, url)
    with _reached(place, url):
        own = lake if isinstance(lake, ObjectStore) and same_system(url, lake.url) else None
        options = "{}" if own is None else own.options
        found = asked(url, options, lambda system, path: _find(system, path, source, None if own is None else own.url))
        files = [InputFile(index, found.url_of(path), found.name_of(path), size_in(info), version_in(info), options)
                 for path, info in found.infos.items()]
    if not files:
        which = f" that match {source.pattern!r}" if source.pattern else ""
        raise DataError(place, f"{url!r} holds no files{which}", "give a folder that does, or another pattern")
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
    except _NoMatchError:
        raise DataError(place, f"{url!r} matches nothing", ANOTHER) from None
    except FileNotFoundError as error:
        raise DataError(place, f"{url!r} is not there ({said(error)})", ANOTHER) from error
    except failures() as error:
        raise DataError(place, f"{url!r} cannot be read ({said(error)})", URL_REMEDY) from error


def _find(system: Any, path: str, source: InputPath, lake_url: str | None) -> _Found:
    """
    Raises:
        FileNotFoundError: nothing is there. Others: see ``lake.file_systems.failures``.
    """
    path = path.rstrip("/")
    roots = _roots(system, path)
    lake = None if lake_url is None else str(system._strip_protocol(lake_url))
    infos = {found: info for root, about in roots.items() for found, info in _files(system, root, about, source, lake)}
    fixed_url = _fixed(source.path) if has_magic(path) else source.path
    return _Found(infos, path if list(roots) == [path] else posixpath.commonpath(list(roots)),
                  str(system._strip_protocol(fixed_url)).rstrip("/"), fixed_url.rstrip("/"))


def _roots(system: Any, path: str) -> Infos:
    """The file or folder that the path names, or those that it matches as a glob."""
    try:
        return {path: system.info(path)}
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
        raise _NoMatchError(path)
    return roots


def _fixed(path: str) -> str:
    """The folders before the first part that is a glob."""
    parts = path.split("/")
    return "/".join(parts[:next((at for at, part in enumerate(parts) if has_magic(part)), len(parts))])


def _files(system: Any, root: str, info: Mapping[str, Any], source: InputPath,
           lake: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The root itself where it is a file; else the files below it, without the lake that we write to."""
    if info["type"] == "file":
        yield root, info
        return
    found: Infos = system.find(root, detail=True)
    ours = f"{lake}/" if lake is not None and lake.startswith(f"{root}/") else None
    for path, about in found.items():
        *folders, name = path[len(root):].strip("/").split("/")
        if (about["type"] == "file" and not path.endswith("/") and (ours is None or not path.startswith(ours))
                and not any(is_left_out(part, source) for part in (*folders, name)) and fnmatch(name, source.pattern or "*")):
            yield path, about
