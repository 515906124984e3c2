"""Fixtures that several packages' tests share, and the lane of the fast ones.

A test that starts processes (Spark, ranks, jobs) says so with ``pytest.mark.processes``: one that does not say it is stopped
when it starts one, so that ``make test-fast`` stays what it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.config import Platform
from pipelines.lake.live_folder import LiveFolder
from pipelines.spark.session import spark_session
from tests.support.readme import block
from tests.support.s3_server import S3Server, running_s3_server

ROOT = Path(__file__).resolve().parents[1]
UNMARKED = {"git"}  # programs that any test may run
_unmarked: list[str] = []  # the running test, where it has no mark
_start = subprocess.Popen.__init__


def _start_marked(process: subprocess.Popen[bytes], args: Any, *rest: Any, **settings: Any) -> None:
    if _unmarked and (args if isinstance(args, str) else str(args[0])) not in UNMARKED:
        pytest.fail(f"{_unmarked[0]} starts {args}: mark it with pytest.mark.processes")
    _start(process, args, *rest, **settings)


subprocess.Popen.__init__ = _start_marked  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _unmarked[:] = [] if item.get_closest_marker("processes") else [item.nodeid]
    try:
        return (yield)
    finally:
        _unmarked.clear()


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One local session for the whole suite; missing Java fails the tests, it does not skip them."""
    temporary = tempfile.gettempdir()  # also a file system of another scheme: viewfs://tests/...
    platform = Platform.model_validate({"spark": {
        "master": "local[2]", "conf": {"spark.sql.shuffle.partitions": 2, "spark.default.parallelism": 2,
                                       f"spark.hadoop.fs.viewfs.mounttable.tests.link.{temporary}": f"file://{temporary}"}}})
    with spark_session(platform, "sparkring-tests") as session:
        yield session


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the whole suite; a missing one fails the tests, it does not skip them."""
    with running_s3_server(tmp_path_factory.mktemp("s3") / "server.log") as server:
        yield server


@pytest.fixture
def live(tmp_path: Path) -> LiveFolder:
    """An attempt's, made."""
    live = LiveFolder(tmp_path / "attempt-000")
    live.make()
    return live


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as README builds it for a cluster, from a copy of the sources."""
    sources = tmp_path_factory.mktemp("sources")
    build, _ = block("On a cluster", 0).commands
    shutil.copytree(ROOT / "pipelines", sources / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, sources / name)
    (sources / ".venv").symlink_to(sys.prefix)
    subprocess.run(build.split(), cwd=sources, check=True, capture_output=True, timeout=120)
    (built,) = (sources / "dist").iterdir()
    return built


@pytest.fixture(scope="session")
def python_without_us(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with every package of this environment except the project itself, and ``spark-submit`` as set-up leaves it.

    A folder named in a ``.pth`` file is searched for modules, but its own ``.pth`` files, by which an editable install
    is found, are not read.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    packages = sysconfig.get_path("purelib")
    (folder / "lib/python3.11/site-packages/packages.pth").write_text(packages, encoding="utf-8")
    installed = Path(sys.prefix, "bin")
    for script in (installed / "spark-submit", installed / "find_spark_home.py", ROOT / "setup/find-spark-home"):
        shutil.copy(script, folder / "bin")
    return folder / "bin/python"
