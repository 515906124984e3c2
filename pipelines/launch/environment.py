"""The machine, the versions and the code that a run is started with.

Runs on: driver.
Takes:   nothing.
Gives:   plain JSON values, kept in the run's state.
"""

from __future__ import annotations

import platform as machine
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPORTED_PACKAGES = ("sparkring", "pyspark", "horovod", "torch", "petastorm", "pyarrow", "numpy")
SOURCE = Path(__file__).parents[2]  # in a checkout, its top; else where packages are installed, or a wheel
GIT_TIMEOUT_S = 5.0


def environment() -> dict[str, Any]:
    """Machine, versions and, in a checkout, its commit; without importing what the driver does not use."""
    versions = {}
    for package in REPORTED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # petastorm is optional; a checkout need not be installed
            continue
    commit = commit_of(SOURCE)
    ours = {"sparkring": versions.pop("sparkring", None), "commit": commit}
    return {**{name: value for name, value in ours.items() if value}, "python": machine.python_version(),
            "system": machine.platform(), "processor": machine.machine(), "driver": socket.gethostname(), **versions}


def commit_of(folder: Path) -> str | None:
    """The commit that is checked out in ``folder``, with ``" and changes"`` where tracked files differ from it.

    None where the folder is not the top of a checkout (a package that is installed somewhere inside another project's is
    none), or git is not there to say.
    """
    if not (folder / ".git").exists():  # a folder, or a file in a worktree
        return None
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit and commit + (" and changes" if changes else "")


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=GIT_TIMEOUT_S,
                              check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
