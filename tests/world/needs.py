"""What ``make test-world`` needs of a machine, looked at before anything is made.

Runs on: the machine of the tests: ``python -m tests.world.needs`` ends with 5 and one line where something is missing.
Takes:   nothing.
Gives:   ``complaint``: that line; None where all is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from pipelines.errors import ResourceError
from setup import s3_environment

PROGRAMS = {"ip": "iproute2", "unshare": "util-linux", "mount": "mount", "hostname": "hostname",
            "java": "openjdk-17-jre-headless"}
NAMESPACES = ["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]


def complaint() -> str | None:
    if os.geteuid() != 0:
        return "make test-world needs root: it makes network namespaces and mounts; sudo make test-world"
    lacking = [f"{name} (apt-get install -y {package})" for name, package in PROGRAMS.items() if shutil.which(name) is None]
    if not lacking and subprocess.run(NAMESPACES, capture_output=True, timeout=30).returncode != 0:
        lacking.append("the right to make namespaces and mounts (in a container: --privileged)")
    if not s3_environment.is_current():
        lacking.append("the S3 server (.venv/bin/python setup/s3_environment.py)")
    return f"make test-world makes a cluster of network namespaces; missing: {', '.join(lacking)}" if lacking else None


if __name__ == "__main__":
    if (missing := complaint()) is not None:
        print(missing, file=sys.stderr)
        sys.exit(ResourceError.exit_code)
