"""What the recipe's inputs are on disk, and the version that they and the recipe make.

Runs on: driver, without Spark.
Takes:   ``prepare.inputs``: files, folders and globs (``file:`` URLs too) on a file system that every machine sees.
Gives:   the files in a fixed order; a fingerprint of their content; ``DataError`` naming the input that has none.

Hidden names (``is_hidden``) are not read from folders and globs, by the rule of Spark's own sources, so that the same
files are read from a path and from a URL. A local file or folder that is named itself is always read.
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
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipelines.config.datasets import USUAL_KIND, InputPath, PrepareSection
from pipelines.config.load import content_hash
from pipelines.errors import DataError
from pipelines.lake.manifest import ROWS_FORMAT
from pipelines.lake.remote_folder import file_at, local_path
from pipelines.lake.store import file_sha256
from pipelines.prepare.threads import in_threads

CONTENT_FINGERPRINT_BYTES = 2 * 1024**3  # above it, size and modification time stand for the content


class InputFile(NamedTuple):
    """One file of one input."""

    input_index: int
    path: str  # absolute
    name: str  # relative to the input's folder: the same wherever the folder lies
    bytes: int
    modified_ns: int


@contextmanager
def as_listed(input_index: int, path: str, size_bytes: int, modified_ns: int) -> Iterator[None]:
    """Around the reading of a file or of a part of it: what is read is what was listed.

    Size and modification time are compared before and after: whoever writes in between is seen by the second look,
    also where other tasks read other parts of the file.

    Raises:
        DataError: the file has changed or is gone since it was listed, or it cannot be read.
    """
    place = f"prepare.inputs.{input_index}.path"

    def refuse_change() -> None:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            found = "gone"
        except OSError:  # opening it gives the reason
            return
        else:
            if (status.st_size, status.st_mtime_ns) == (size_bytes, modified_ns):
                return
            found = f"{status.st_size:,} bytes of {_time(status.st_mtime_ns)}"
        raise DataError(place, f"{path_text(path)}: input changed while it was read, from {size_bytes:,} bytes of "
                        f"{_time(modified_ns)} to {found}", "prepare again when nothing writes to the input")

    refuse_change()
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeEncodeError) as error:  # the last: a name that pyarrow cannot spell
        refuse_change()  # what was cut short is not damaged
        raise DataError(place, f"{path_text(path)} cannot be read ({one_line(error)})",
                        "restore it, fix its permissions, or move it out of the input") from error
    refuse_change()


def path_text(path: str) -> str:
    """A path as text, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "replace")


def _time(modified_ns: int) -> str:
    return datetime.fromtimestamp(modified_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def one_line(error: BaseException) -> str:
    """What the operating system or a library says, short enough for an error."""
    strerror = error.strerror if isinstance(error, OSError) else None
    return " ".join((strerror or str(error)).split())[:300]


def is_url(path: str) -> bool:
    """Whether Spark reads it (a scheme other than ``file`` is given) rather than the local file system."""
    return "://" in local_path(path)


def list_files(inputs: tuple[InputPath, ...], lake_root: Path) -> list[InputFile]:
    """All files of the local inputs, in the order of the recipe, then of their names.

    Raises:
        DataError: an input does not exist or holds no file.
    """
    return [file for index, source in enumerate(inputs) if not is_url(source.path)
            for file in _list_input(index, source, lake_root)]


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
                files[full] = InputFile(index, full, name, status.st_size, status.st_mtime_ns)
    except OSError as error:
        problem = error.strerror if error.errno == errno.EINVAL else f"cannot be read: {error.strerror}"
        raise DataError(place, f"{error.filename!r} {problem}", "restore it, fix its permissions, or leave it out") from error
    if not files:
        which = f" that match {source.pattern!r}" if source.pattern else ""
        raise DataError(place, f"{path!r} holds no files{which}", "give a folder that does, or another pattern")
    return sorted(files.values(), key=lambda file: file.name)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out: a leading dot or underscore.

    Source: Apache Spark, HadoopFSUtils.shouldFilterOutPathName (``_date=2026-01-01`` is a partition).
    """
    return name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_")


def _walk(root: str, source: InputPath, lake_root: Path) -> Iterator[str]:
    """The root itself where it is a file; else the files below it, without the lake that we write to."""
    if not os.path.isdir(root):
        if not stat.S_ISREG(os.stat(root).st_mode):  # a pipe or a device has no end
            raise OSError(errno.EINVAL, "is neither a file nor a folder", root)
        yield root
        return

    def refuse(error: OSError) -> None:
        raise error

    def left_out(name: str) -> bool:
        return is_hidden(name) or any(fnmatch.fnmatch(name, excluded) for excluded in source.exclude)

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not left_out(name)
                            and os.path.abspath(os.path.join(folder, name)) != str(lake_root))
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not left_out(name) and os.path.isfile(path) and fnmatch.fnmatch(name, source.pattern or "*"):
                yield path


def no_mark(file: InputFile) -> str:
    """Of a file that has always been read as it is read now."""
    return ""


def fingerprint(files: Sequence[InputFile], mark: Callable[[InputFile], str] = no_mark) -> str:
    """Changes when a file's name or content does; not when the folder is moved or a file is touched.

    Above ``CONTENT_FINGERPRINT_BYTES`` in total, size and modification time stand for the content.

    Args:
        mark: what else a file's identity depends on.
    Raises:
        DataError: a file cannot be read, or has changed since it was listed.
    """
    by_content = sum(file.bytes for file in files) <= CONTENT_FINGERPRINT_BYTES

    def identity(file: InputFile) -> str:
        return (_content_identity(file) if by_content else str(file.modified_ns)) + mark(file)

    whole = hashlib.sha256()
    for file, what in zip(files, in_threads(identity, files, os.cpu_count() or 1), strict=True):
        whole.update(repr((file.input_index, file.name, file.bytes, what)).encode())
    return whole.hexdigest()


def _content_identity(file: InputFile) -> str:
    with as_listed(file.input_index, file.path, file.bytes, file.modified_ns):
        return file_sha256(Path(file.path))


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
