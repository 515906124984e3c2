"""File systems behind URLs, by fsspec: opened, and what they raise told apart.

Runs on: driver, executors and ranks.
Takes:   a URL of a scheme that fsspec knows, and the options of its file system (``storage.options``).
Gives:   ``system_at``; ``same_system``; ``failures``, every error of one that cannot be reached or refuses; ``said``, one in a
         line; ``size_in``, ``version_in``: what it says of an object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

# what file systems raise beside OSError, by the module that has it once one of them is in use
_THEIR_ERRORS = {"httpx": "HTTPError", "httpx2": "HTTPError", "aiohttp": "ClientError", "botocore.exceptions": "BotoCoreError",
                 "fsspec.exceptions": "FSTimeoutError"}
MOST_SHOWN = 200
# by which file systems tell an object from its replacement, the surest first
_VERSIONS = ("ETag", "etag", "generation", "version_id", "blob_id", "mtime", "Last-Modified", "last_modified", "LastModified",
             "created")
# of S3, beside what a user gives: a request is tried again for about half a minute, and none hangs for ever
S3_CONFIG = {"retries": {"max_attempts": 8, "mode": "standard"}, "connect_timeout": 10, "read_timeout": 60}


def system_at(url: str, options: str = "{}") -> tuple[Any, str]:
    """The file system, and the URL as a path of it. Made once in each process, and kept by fsspec.

    Args:
        options: of the file system, as JSON.
    Raises:
        ImportError: a package is missing. ValueError: no file system has that scheme.
    """
    from fsspec.core import url_to_fs  # it takes a while, and few commands need it

    settings: dict[str, Any] = {"use_listings_cache": False, **json.loads(options)}
    if url.startswith(("s3://", "s3a://")):
        settings["config_kwargs"] = {**S3_CONFIG, **settings.get("config_kwargs", {})}
    system, path = url_to_fs(url, **settings)
    return system, str(path)


def same_system(url: str, other: str) -> bool:
    """Whether one file system has both URLs, whatever it is called in them: its options are those of both.

    Raises:
        ImportError, ValueError: see ``system_at``.
    """
    from fsspec import get_filesystem_class

    kinds = [get_filesystem_class(each.partition("://")[0]) for each in (url, other)]
    return kinds[0] is kinds[1]


def version_in(info: Mapping[str, Any]) -> str:
    """What changes with an object's content, of what a file system's ``info`` says; "" where nothing does."""
    return next((str(info[mark]) for mark in _VERSIONS if info.get(mark)), "")


def size_in(info: Mapping[str, Any]) -> int:
    """In bytes. Raises OSError where the server does not say it."""
    if info["size"] is None:
        raise OSError("the server does not say how large it is")
    return int(info["size"])


def failures() -> tuple[type[Exception], ...]:
    """What a file system in use may raise where it is not reached, or refuses: among others OSError."""
    theirs = (getattr(sys.modules[module], name) for module, name in _THEIR_ERRORS.items() if module in sys.modules)
    return (OSError, ValueError, *theirs)


def said(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:MOST_SHOWN] or type(error).__name__
