"""Makes ``.venv-s3``: the S3 server (moto) that tests use, in an environment of its own.

Runs on: the developer's machine, by ``make test``; nothing but tests needs it.
Takes:   ``setup/s3.lock``, every package of it, exact.
Gives:   ``.venv-s3``, ready. Run again it does nothing; interrupted and run again it starts over. ``is_current`` says which.

It is not part of ``.venv``: what the server needs is no business of the project's own packages, and the other way round.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "setup/s3.lock"
ENVIRONMENT = ROOT / ".venv-s3"
PYTHON = ENVIRONMENT / "bin/python"
STAMP = ENVIRONMENT / "packages.stamp"  # which lock file and folder it was made from; written last
LOG = ENVIRONMENT / "setup.log"
SHOWN_LINES = 25


def key() -> str:
    """Another one, once the lock file or the folder that the environment lies in is another."""
    return hashlib.sha256(f"{ROOT}\n{LOCK.read_text(encoding='utf-8')}".encode()).hexdigest()


def is_current() -> bool:
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == key()


def make(lock: int) -> None:
    STAMP.unlink(missing_ok=True)  # first, so that an interrupted removal is never taken for a finished set-up
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    ENVIRONMENT.mkdir()
    # Not this Python, which lies in an environment itself, but the one behind it.
    logged([sys._base_executable, "-m", "venv", str(ENVIRONMENT)], lock)  # type: ignore[attr-defined]
    # --no-deps: the lock file is complete.
    logged([str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off",
            "--no-deps", "-r", str(LOCK)], lock)
    STAMP.write_text(key(), encoding="utf-8")


def logged(command: list[str], lock: int) -> None:
    """Runs a command into the log; if it fails, shows the log's end and ends.

    It holds the lock too: if this process is killed, the next set-up waits for what it has left running.
    """
    with open(LOG, "ab") as log:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[lock])
    if ended.returncode:
        lines = LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
        sys.exit("\n".join([f"setup: failed; the end of {LOG}:", *lines]))


def main() -> None:
    with open(LOCK, encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two set-ups at once: the second waits, then finds the work done
        if is_current():
            return
        start = time.monotonic()
        print("an S3 server for the tests in .venv-s3: a download of about 30 MB the first time")
        make(lock.fileno())
        print(f"set-up of the S3 server done in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("setup: interrupted; the next set-up starts over", file=sys.stderr)
        sys.exit(130)
