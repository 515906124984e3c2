"""A real S3 server of one's own: moto, as a process, for the tests and benchmarks of lakes on S3.

Runs on: the machine of the tests, in the environment that ``setup/s3_environment.py`` makes.
Takes:   nothing.
Gives:   ``running_s3_server``: an ``S3Server`` for as long as the block lasts. The fixture ``s3_server`` is one for all tests of
         a pytest worker.

All it holds is in its memory. It takes any credentials (but refuses a request without any to an object), and does one write after
the other. It dies with the process that started it, however that ends.
"""

from __future__ import annotations

import http.client
import itertools
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from setup import s3_environment

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
REGION = "us-east-1"

# What the server's Python runs. Signal 9 once the thread that started it is gone; that may have been before it was asked for.
# Whether there is an object already (If-None-Match) is looked up apart from the writing: nothing else is written in between.
_SERVER = """
import ctypes, functools, os, sys, threading
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the tests are gone")
from moto.s3.responses import S3Response
from moto.server import main
one_at_a_time = threading.Lock()
def alone(method):
    @functools.wraps(method)
    def locked(*given):
        with one_at_a_time:
            return method(*given)
    return locked
for name in ("_key_response_put", "_key_response_post"):
    setattr(S3Response, name, alone(getattr(S3Response, name)))
main(["-H", sys.argv[2], "-p", "0"])
"""


@dataclass(frozen=True)
class S3Server:
    """Where it listens, and what clients need to speak with it."""

    endpoint_url: str
    pid: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a client: credentials that are none, and nothing of this machine's own settings."""
        return {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION,
                "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}

    @property
    def options(self) -> dict[str, str]:
        """For ``fsspec.filesystem("s3", **options)``."""
        return {"endpoint_url": self.endpoint_url}

    def new_bucket(self) -> str:
        """The name of a bucket that was just made."""
        name = f"bucket-{next(self._numbers)}"
        address = urlsplit(self.endpoint_url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=END_TIMEOUT_S)
        try:
            connection.request("PUT", f"/{name}")
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise RuntimeError(f"the S3 server made no bucket: {answer.status} {answer.read().decode()}")
        finally:
            connection.close()
        return name


@contextmanager
def running_s3_server(log: Path, address: str = "127.0.0.1") -> Iterator[S3Server]:
    """A server that is ready to answer at an address of this machine; what it says goes to the file ``log``.

    Raises:
        RuntimeError: its environment is missing or of another lock file, or it did not start.
    """
    with open(log, "wb") as output:
        process = subprocess.Popen([_server_python(), "-c", _SERVER, str(os.getpid()), address], stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=output, env={"PATH": os.environ["PATH"]})
    try:
        yield S3Server(_answering_url(process, log), process.pid)
    finally:
        process.kill()  # it has nothing to finish
        process.wait(timeout=END_TIMEOUT_S)


def _server_python() -> Path:
    if not s3_environment.is_current():
        raise RuntimeError(f"{s3_environment.ENVIRONMENT} is missing or older than {s3_environment.LOCK}; make it with: "
                           f".venv/bin/python setup/s3_environment.py")
    return s3_environment.PYTHON


def _answering_url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, which it says once it does: a port that nobody could take in between."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"Running on (http://[\d.]+:\d+)", log.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not start (exit code {process.poll()}):\n{log.read_text(errors='replace')[-2000:]}")
