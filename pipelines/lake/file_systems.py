"""File systems behind URLs, by fsspec: opened, and what they raise told apart.

Runs on: driver, executors and ranks.
Takes:   a URL of a scheme that fsspec knows, and the options of its file system (``storage.options``).
Gives:   ``system_at``; ``failures``, every error of one that cannot be reached or refuses; ``said``, one in a line.
"""

from __future__ import annotations

import json
import sys
from typing import Any

# what file systems raise beside OSError, by the module that has it once one of them is in use
_THEIR_ERRORS = {"httpx": "HTTPError", "httpx2": "HTTPError", "aiohttp": "ClientError", "botocore.exceptions": "BotoCoreError",
                 "fsspec.exceptions": "FSTimeoutError"}
MOST_SHOWN = 200
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


def failures() -> tuple[type[Exception], ...]:
    """What a file system in use may raise where it is not reached, or refuses: among others OSError."""
    theirs = (getattr(sys.modules[module], name) for module, name in _THEIR_ERRORS.items() if module in sys.modules)
    return (OSError, ValueError, *theirs)


def said(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:MOST_SHOWN] or type(error).__name__
