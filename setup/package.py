"""Packs what an executor runs in: Python, all packages that a run needs, Horovod and this project, as one archive.

Takes: the environment that runs this, as set-up made it; a file name, where it is to be another.
Gives: dist/environment.tar.gz, for `--archives` of spark-submit (`sparkring submit --package`). An executor unpacks it beside
       itself; its host needs an operating system with a C library at least as new as this one's, and Java for Spark, no more.

Packages for development stay out, and of Spark the Java part: executors have it already.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = ROOT / "dist/environment.tar.gz"
OURS = "sparkring"
NOT_ON_EXECUTORS = re.compile(r"pyspark/(jars|examples|data|licenses|sbin)/")
NOT_OF_PYTHON = shutil.ignore_patterns("site-packages", "dist-packages", "test", "tests", "idlelib", "ensurepip", "tkinter",
                                       "turtledemo", "_tkinter*", "lib2to3", "config-*", "sitecustomize.py", "EXTERNALLY-MANAGED")
OF_THE_SYSTEM = re.compile(r"(libc|libm|libdl|libpthread|librt|libutil|libresolv|ld-linux[\w-]*)\.so")  # one C library, its own
COMPRESSION = 1  # libraries hardly become smaller, and more takes minutes
# Libraries that Python links to may be missing on a host; and where Python looks for packages is not the same everywhere.
PYTHON = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH=$here/../lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/python3.11" "$@"
"""
PACKAGES_TOO = """import os, site, sys
packages = os.path.join(os.path.dirname(__file__), "site-packages")
if packages not in sys.path:
    site.addsitedir(packages)
"""
TRY = "import horovod.torch, petastorm, pyarrow, pyspark, torch, pipelines; print(torch.__version__)"


def main(target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=target.parent) as folder:
        environment = Path(folder) / "environment"
        write_environment(environment)
        subprocess.run([environment / "bin/python", "-c", TRY], check=True, env={"PATH": os.defpath}, cwd="/",
                       stdout=subprocess.DEVNULL)
        packed = Path(folder) / target.name
        with tarfile.open(packed, "w:gz", compresslevel=COMPRESSION) as archive:
            archive.add(environment, ".")
        packed.replace(target)
    print(f"{target}: {target.stat().st_size / 10**6:,.0f} MB, for {platform.machine()} hosts with "
          f"{' '.join(platform.libc_ver())} or newer, and Java")


def write_environment(environment: Path) -> None:
    """A Python that runs wherever the folder lies."""
    library = environment / "lib/python3.11"
    shutil.copytree(sysconfig.get_paths()["stdlib"], library, ignore=NOT_OF_PYTHON, ignore_dangling_symlinks=True)
    (library / "sitecustomize.py").write_text(PACKAGES_TOO)
    for distribution in needed(OURS):
        copy_distribution(distribution, library / "site-packages")
    binary = environment / "bin/python3.11"
    binary.parent.mkdir()
    shutil.copy2(Path(sys.executable).resolve(), binary)
    python = environment / "bin/python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    linked = [binary, *(library / "lib-dynload").glob("*.so"), *(library / "site-packages/horovod").rglob("*.so")]
    for path in sorted(set(linked_libraries(linked))):
        shutil.copy2(path, environment / "lib" / path.name)


def needed(name: str) -> list[metadata.Distribution]:
    """A distribution and all that are installed of what it needs, by name."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [name]
    while waiting:
        each = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if each in found:
            continue
        try:
            found[each] = metadata.distribution(each)
        except metadata.PackageNotFoundError:  # the lock file leaves out what is declared and not needed
            continue
        requirements = map(Requirement, found[each].requires or ())
        waiting += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [found[each] for each in sorted(found)]


def copy_distribution(distribution: metadata.Distribution, packages: Path) -> None:
    if distribution.name == OURS:  # here it leads to the checkout
        shutil.copytree(ROOT / "pipelines", packages / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    for file in distribution.files or ():
        own = distribution.name == OURS and file.name != "METADATA"
        if own or ".." in file.parts or NOT_ON_EXECUTORS.match(str(file)):
            continue
        source, target = Path(str(file.locate())), packages / file
        if source.is_file():  # compiled modules that were never made are listed too
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def linked_libraries(files: list[Path]) -> Iterator[Path]:
    """The system's libraries that they are linked to, but for the C library."""
    for file in files:
        told = subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout
        for name, path in re.findall(r"^\s*(\S+) => (/\S+)", told, re.MULTILINE):
            if not OF_THE_SYSTEM.match(name) and not Path(path).is_relative_to(sys.prefix):
                yield Path(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
