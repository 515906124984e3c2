"""Which settings are secrets, and how they are shown: never.

Runs on: driver.
Takes:   settings of Spark by name; the text of a ``--set`` override.
Gives:   the same with every secret's value replaced by ``MASK``.

A setting is a secret by its name. Spark's own pattern is the beginning of ours; the rest are the names that Hadoop's file
systems give to keys (``fs.azure.account.key.NAME``, ``fs.gs.auth.service.account.private.key``), and a platform's own
``spark.redaction.regex`` is heeded too.

Source: ``spark.redaction.regex`` in org/apache/spark/internal/config/package.scala.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

MASK = "*****"
REDACTION_SETTING = "spark.redaction.regex"
_SECRET = re.compile(r"(?i)secret|password|token|access[._]?key|passphrase|credential|(account|private|api)[._-]?key|[._]sas[._]")
# what a value may carry: the user and password of a URL, its signature or token, and Java properties in spark.*.extraJavaOptions
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/@\s:]+:[^/@\s]+(?=@)")
_URL_PARAMETER = re.compile(r"(?<=[?&])([^=&#\s]+)=([^&#\s]+)")
_SIGNATURE = re.compile(r"(?i)(x-(amz|goog)-)?sig(nature)?")  # as URLs that are signed in advance call it
_OPTION_SECRETS = {"key", "secret", "sas", "pass", "passwd", "connection_string", "authorization", "auth"}
_CONNECTION_KEY = re.compile(r"(?i)(account|sharedaccess)(key|signature)=")
_JAVA_PROPERTY = re.compile(r"(-D([^=\s]+)=)(\"[^\"]*\"|\S+)")


def is_secret(name: str, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether the value of the setting of that name is a secret.

    Args:
        settings: all of them; one may be the user's own ``spark.redaction.regex``.
    """
    own = str((settings or {}).get(REDACTION_SETTING, ""))
    return bool(_SECRET.search(name) or (own and _searches(own, name)))


def settings_in(settings: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All settings by name, those within others too."""
    if isinstance(settings, Mapping):
        for each, value in settings.items():
            yield from settings_in(value, str(each))
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from settings_in(value, name)
    else:
        yield name, settings


def is_option_secret(name: str, value: Any) -> bool:
    """Of the options of a file system, which have names of their own."""
    return name.lower() in _OPTION_SECRETS or is_secret(name) or (isinstance(value, str) and (
        has_credentials(value) or _CONNECTION_KEY.search(value) is not None))


def masked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Spark's settings as they may be shown and stored."""
    return {name: MASK if is_secret(name, settings) else masked_text(value) if isinstance(value, str) else value
            for name, value in settings.items()}


def masked_text(text: str) -> str:
    """A text without what lets one into a URL and without secret Java properties."""
    text = _URL_CREDENTIALS.sub(MASK, text)
    text = _URL_PARAMETER.sub(lambda found: f"{found[1]}={MASK}" if _lets_in(found[1]) else found[0], text)
    return _JAVA_PROPERTY.sub(lambda found: found[1] + MASK if is_secret(found[2]) else found[0], text)


def has_credentials(url: str) -> bool:
    """Whether a user and a password stand in the URL, a token or a signature."""
    return _URL_CREDENTIALS.search(url) is not None or any(_lets_in(found[1]) for found in _URL_PARAMETER.finditer(url))


def without_password(url: str, written_into: str, remedy: str) -> str:
    """The URL, which is going to be written somewhere. Raises ValueError where a password or a token stands in it."""
    if has_credentials(url):
        raise ValueError(f"a URL with a password or token would be written into {written_into}; give it to the file system by "
                         f"{remedy}")
    return url


def masked_override(override: str, known: Mapping[str, Any] | None = None) -> str:
    """A ``--set KEY=VALUE`` text as it may be shown and stored; only Spark's settings have secrets.

    Args:
        known: all settings of Spark; one may be the user's own ``spark.redaction.regex``.
    """
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if parts[0] != "spark" or not separator:
        return masked_text(override)
    name = ".".join(parts[2:])
    if parts[1:2] == ["conf"] and name:
        return f"{key}={MASK}" if is_secret(name, known) else masked_text(override)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return f"{key}={MASK}"
    settings = value.get("conf") if parts == ["spark"] and isinstance(value, dict) else value
    if not isinstance(settings, dict) or masked_settings(settings) == settings:
        return override
    masked = masked_settings(settings)
    return f"{key}={json.dumps(masked if settings is value else {**value, 'conf': masked}, ensure_ascii=False)}"


def _lets_in(parameter: str) -> bool:
    return is_secret(parameter) or _SIGNATURE.fullmatch(parameter) is not None


def _searches(pattern: str, name: str) -> bool:
    """A pattern of Java's that Python does not know hides the value: better too much than too little."""
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return True
