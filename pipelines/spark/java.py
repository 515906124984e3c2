"""Finds the Java that Spark will run on.

Runs on: driver.
Takes:   JAVA_HOME and PATH, in the order in which Spark's own scripts look.
Gives:   ``Java``; or ``ResourceError`` with the command that installs it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ResourceError

OLDEST_MAJOR = 17  # what Spark 4 needs
INSTALL = "apt-get install -y openjdk-17-jre-headless"


@dataclass(frozen=True)
class Java:
    """A Java that runs and is new enough."""

    path: Path
    major: int


def find_java() -> Java:
    """The Java that Spark will start.

    Raises:
        ResourceError: there is none, it does not run, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    if home:
        path = Path(home) / "bin" / "java"
        if not os.access(path, os.X_OK):
            raise ResourceError("JAVA_HOME", f"{home} holds no bin/java",
                                f"set it to a Java {OLDEST_MAJOR} or newer, or unset it and install one: {INSTALL}")
    else:
        found = shutil.which("java")
        if found is None:
            raise ResourceError("Java", "not found: JAVA_HOME is not set and there is no java on PATH",
                                f"install it ({INSTALL}) or set JAVA_HOME to one")
        path = Path(found)
    major = _major(path)
    if major < OLDEST_MAJOR:
        raise ResourceError(str(path), f"is Java {major}; Spark needs {OLDEST_MAJOR} or newer",
                            f"install it ({INSTALL}) and set JAVA_HOME to it")
    return Java(path, major)


def _major(path: Path) -> int:
    """17 for ``openjdk version "17.0.15"``; 8 for ``java version "1.8.0_402"``."""
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(str(path), f"does not run: {error}", f"install another Java: {INSTALL}") from error
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    if match is None:
        raise ResourceError(str(path), f"does not tell its version (exit code {answer.returncode})",
                            f"install another Java: {INSTALL}")
    return int(match[1])
