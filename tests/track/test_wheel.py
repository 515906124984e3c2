"""The report from the package as a cluster gets it: a wheel that is never unpacked."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from pipelines.lake.paths import Lake
from pipelines.track.tables import load_run
from tests.conftest import ROOT
from tests.track.conftest import WriteRun

pytestmark = pytest.mark.processes

WRITE = """
import sys
import pipelines
from pipelines.lake.paths import Lake
from pipelines.track.report.page import write_report
print(pipelines.__file__)
write_report(Lake.at(sys.argv[1]))
"""


def test_a_report_is_written_by_the_wheel(wheel: Path, python_without_us: Path, lake: Lake, write_run: WriteRun,
                                          tmp_path: Path):
    write_run()
    load_run(lake, "run-1")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    alone = subprocess.run([python_without_us, "-c", "import pipelines"], cwd=tmp_path, env=environment, capture_output=True,
                           text=True, timeout=60)
    assert "No module named 'pipelines'" in alone.stderr  # so what follows is the wheel's
    written = subprocess.run([python_without_us, "-c", WRITE, lake.root], cwd=tmp_path, capture_output=True, text=True,
                             env=environment | {"PYTHONPATH": str(wheel)}, timeout=60)
    assert written.returncode == 0, written.stderr
    assert written.stdout.strip() == str(wheel / "pipelines/__init__.py")
    assert "<html" in lake.store.read(lake.run("run-1").report).decode()


def test_the_wheel_holds_every_file_of_the_package(wheel: Path):
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "pipelines"], capture_output=True, text=True, check=True).stdout
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == set(tracked.split())
