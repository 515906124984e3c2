"""What the recipe's inputs are on disk or at URLs, and the version that they and the recipe make.

Runs on: driver, without Spark.
Takes:   ``prepare.inputs``: files, folders and globs (``file:`` URLs too) on a file system that every machine sees; at URLs
         that Python reads.
Gives:   the files in a fixed order; a fingerprint of their content; ``DataError`` naming the input that has none.

Hidden names (``input_names.is_hidden``) are not read from folders and globs, by the rule of Spark's own sources, so that the
same files are read from a path and from a URL. A local file or folder that is named itself is always read.
"""
# Globs, and the names of a hundred thousand files: plain strings are shorter than pathlib and several times as fast.
# ruff: noqa: PTH100, PTH112, PTH113, PTH116, PTH118, PTH119, PTH207

from __future__ import annotations

import errno
import fnmatch
import glob
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipelines.config.datasets import USUAL_KIND, InputPath, PrepareSection
from pipelines.config.input_schemes import python_reads
from pipelines.config.load import content_hash
from pipelines.errors import DataError
from pipelines.lake.manifest import ROWS_FORMAT
from pipelines.lake.remote_folder import file_at, local_path
from pipelines.lake.store import Store, file_sha256
from pipelines.prepare.input_files import InputFile, as_listed, local_file, opened_input
from pipelines.prepare.input_names import is_hidden, is_left_out
from pipelines.prepare.inputs_at_urls import list_at_url
from pipelines.prepare.threads import in_threads

CONTENT_FINGERPRINT_BYTES = 2 * 1024**3  # above it, size and modification time stand for the content


def is_url(path: str) -> bool:
    """Whether a scheme other than ``file`` is given."""
    return "://" in local_path(path)


def spark_reads(path: str) -> bool:
    """Whether it is a URL that Spark lists and reads. Python does that with all other inputs."""
    return is_url(path) and not python_reads(path)


def list_files(inputs: tuple[InputPath, ...], lake_root: Path, lake: Store | None = None) -> list[InputFile]:
    """All files of the inputs that Python reads, in the order of the recipe, then of their names.

    Args:
        lake_root: a folder that is not read, where we write. lake: the store, whose objects are not either; its options are
            those of URLs on the same file system.
    Raises:
        DataError: an input does not exist or holds no file.
    """
    return [file for index, source in enumerate(inputs) if not spark_reads(source.path)
            for file in (list_at_url(index, source, lake) if python_reads(source.path)
                         else _list_input(index, source, lake_root))]


def _list_input(index: int, source: InputPath, lake_root: Path) -> list[InputFile]:
    place, path = source.place(index), local_path(source.path)
    if os.path.lexists(path):  # a real name wins over a glob that it looks like
        roots = [path]
    elif glob.has_magic(path):
        roots = sorted(root for root in glob.glob(path, recursive=True) if not is_hidden(os.path.basename(root)))
        if not roots:
            raise DataError(place, f"{path!r} matches nothing", "give a file, a folder or a glob that matches")
    else:
        raise DataError(place, f"{path!r} does not exist", "give a file, a folder or a glob that matches")
    base = path if roots == [path] else os.path.commonpath(roots)
    files: dict[str, InputFile] = {}
    try:
        for root in roots:
            for found in _walk(root, source, lake_root):
                status, full = os.stat(found), os.path.abspath(found)
                name = os.path.relpath(found, base) if found != base else os.path.basename(found)
                files[full] = local_file(index, full, name, status)
    except OSError as error:
        problem = error.strerror if error.errno == errno.EINVAL else f"cannot be read: {error.strerror}"
        raise DataError(place, f"{error.filename!r} {problem}", "restore it, fix its permissions, or leave it out") from error
    if not files:
        which = f" that match {source.pattern!r}" if source.pattern else ""
        raise DataError(place, f"{path!r} holds no files{which}", "give a folder that does, or another pattern")
    return sorted(files.values(), key=lambda file: file.name)


def _walk(root: str, source: InputPath, lake_root: Path) -> Iterator[str]:
    """The root itself where it is a file; else the files below it, without the lake that we write to."""
    if not os.path.isdir(root):
        if not stat.S_ISREG(os.stat(root).st_mode):  # a pipe or a device has no end
            raise OSError(errno.EINVAL, "is neither a file nor a folder", root)
        yield root
        return

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not is_left_out(name, source)
                            and os.path.abspath(os.path.join(folder, name)) != str(lake_root))
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not is_left_out(name, source) and os.path.isfile(path) and fnmatch.fnmatch(name, source.pattern or "*"):
                yield path


def no_mark(file: InputFile) -> str:
    """Of a file that has always been read as it is read now."""
    return ""


def fingerprint(files: Sequence[InputFile], mark: Callable[[InputFile], str] = no_mark) -> str:
    """Changes when a file's name or content does; not when the folder is moved or a file is touched.

    Above ``CONTENT_FINGERPRINT_BYTES`` in total, size and modification time stand for the content; at a URL always size and
    version, where there is one.

    Args:
        mark: what else a file's identity depends on.
    Raises:
        DataError: a file cannot be read, or has changed since it was listed.
    """
    by_content = sum(file.bytes for file in files if not file.at_url) <= CONTENT_FINGERPRINT_BYTES

    def identity(file: InputFile) -> str:
        by_version = file.version if file.at_url else not by_content
        return (file.version if by_version else _content_identity(file)) + mark(file)

    whole = hashlib.sha256()
    for file, what in zip(files, in_threads(identity, files, os.cpu_count() or 1), strict=True):
        whole.update(repr((file.input_index, file.name, file.bytes, what)).encode())
    return whole.hexdigest()


def _content_identity(file: InputFile) -> str:
    with as_listed(file):
        if not file.at_url:
            return file_sha256(Path(file.path))
        with opened_input(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def recipe_hash(prepare: PrepareSection) -> str:
    """16 hex digits of the prepare section, in which files stand for their content and not for their place.

    Raises:
        DataError: a file that a setting names cannot be read.
    """
    content = prepare.model_dump(mode="json")
    for source in content["inputs"]:
        for path in (source, source.get("labels") or {}):
            path.update({"path": "", "pattern": None, "exclude": []})
    if content["kind"] == USUAL_KIND:  # the versions from before there were others stay
        del content["kind"]
        if not content["split"]["test_fraction"]:
            del content["split"]["test_fraction"]
    for key, path in prepare.files.items():
        *sections, name = key.split(".")
        at = content
        for section in sections:
            at = at[section]
        try:
            at[name] = hashlib.sha256(file_at(path)).hexdigest()
        except OSError as error:
            raise DataError(f"prepare.{key}", f"{path!r} cannot be read: {error.strerror or error}",
                            "give a file that can; without prepare.tokenizer it is that of model.from") from error
    return content_hash(content)


def dataset_version(prepare_hash: str, input_fingerprint: str) -> str:
    """16 hex digits: the same for the same inputs, prepare section and format."""
    return hashlib.sha256(f"{prepare_hash} {input_fingerprint} {ROWS_FORMAT}".encode()).hexdigest()[:16]
