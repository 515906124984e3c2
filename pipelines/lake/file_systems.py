"""File systems behind URLs, by fsspec: opened, asked again where a request fails in passing, and their errors told apart.

Runs on: driver, executors and ranks.
Takes:   a URL of a scheme that fsspec knows, and the options of its file system (``storage.options``).
Gives:   ``system_at``; ``asked``, which repeats; ``failures``, every error of one that is not reached or refuses; ``said``;
         ``same_system``; ``size_in``, ``version_in``: what it says of an object.

S3's file system repeats in three layers, which multiply to minutes: here they are told to be brief, and what is left is
repeated by ``asked``, within one bound. What it does not repeat is sound: missing, refused, no credentials.
"""

from __future__ import annotations

import errno
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

# what file systems raise beside OSError, by the module that has it once one of them is in use
_THEIR_ERRORS = {"httpx": ["HTTPError"], "httpx2": ["HTTPError"], "aiohttp": ["ClientError"],
                 "botocore.exceptions": ["BotoCoreError", "ClientError"]}
# of these, the ones that the same request may not meet again, by their classes' names; and the errors of the system that S3's
# answers are turned into: 503, 500, a conflict of two conditional requests
_PASSING = {"ClientPayloadError", "ServerDisconnectedError", "ClientOSError", "ConnectionClosedError", "EndpointConnectionError",
            "ConnectTimeoutError", "ReadTimeoutError", "FlexibleChecksumError", "FSTimeoutError", "ServerTimeoutError",
            "FileExpired"}
_PASSING_NUMBERS = {errno.EBUSY, errno.EREMOTEIO, errno.EIO, errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE}
PATIENCE_S = 30.0  # in which a request that fails in passing is repeated
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 4.0
MOST_SHOWN = 200
# by which file systems tell an object from its replacement, the surest first
_VERSIONS = ("ETag", "etag", "generation", "version_id", "blob_id", "mtime", "Last-Modified", "last_modified", "LastModified",
             "created")
S3_CONFIG = {"retries": {"mode": "standard", "total_max_attempts": 2}, "connect_timeout": 10, "read_timeout": 60}
ResultT = TypeVar("ResultT")


def system_at(url: str, options: str = "{}") -> tuple[Any, str]:
    """The file system, and the URL as a path of it. fsspec keeps one for each process and thread.

    Args:
        options: of the file system, as JSON.
    Raises:
        ImportError: a package is missing. ValueError: no file system has that scheme.
    """
    from fsspec.core import url_to_fs  # it takes a while, and few commands need it

    settings: dict[str, Any] = {"use_listings_cache": False, **json.loads(options)}
    of_s3 = url.startswith(("s3://", "s3a://"))
    if of_s3:
        settings["config_kwargs"] = {**S3_CONFIG, **settings.get("config_kwargs", {})}
    system, path = url_to_fs(url, **settings)
    if of_s3:
        system.retries = 1
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


def asked(url: str, options: str, request: Callable[[Any, str], ResultT], patience_s: float = PATIENCE_S) -> ResultT:
    """What ``request`` gives of the file system and the path; repeated while it fails in passing.

    Raises:
        FileNotFoundError, FileExistsError: as the file system says. Others: see ``failures``.
    """
    until, pause_s = time.monotonic() + patience_s, FIRST_PAUSE_S
    while True:
        try:
            return request(*system_at(url, options))
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise ValueError(f"the options are not accepted: {said(error)}") from error  # which some make use of only now
        except failures() as error:
            if not _is_passing(error) or time.monotonic() + pause_s > until:
                raise
        time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - so that many that failed together do not come together
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def failures() -> tuple[type[Exception], ...]:
    """What a file system in use may raise where it is not reached, or refuses: among others OSError."""
    theirs = (getattr(sys.modules[module], name) for module, names in _THEIR_ERRORS.items() if module in sys.modules
              for name in names)
    return (OSError, ValueError, *theirs)


def said(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:MOST_SHOWN] or type(error).__name__


def _is_passing(error: BaseException) -> bool:
    return (any(kind.__name__ in _PASSING for kind in type(error).__mro__)
            or (isinstance(error, OSError) and error.errno in _PASSING_NUMBERS))
