"""``sparkring report``: which run is meant, and what a terminal is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.tables.paths import Lake
from tests.track.conftest import START_S, WriteRun


@pytest.fixture
def platform(tmp_path: Path, lake: Lake) -> str:
    path = tmp_path / "platform.yaml"
    path.write_text(json.dumps({"storage": {"root": str(lake.root)}}))
    return str(path)


def test_a_report_needs_no_recipe(lake: Lake, platform: str, write_run: WriteRun,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    write_run("older", num_steps=3, started_s=START_S - 9)
    write_run("newer", num_steps=3)
    assert main(["report", "--platform", platform, "--run-id", "older", "--dry-run"]) == 0
    assert str(lake.run("older").report) in capsys.readouterr().out and not lake.run("older").report.exists()
    assert main(["report", "--platform", platform, "--run-id", "older", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_id"] == "older" and lake.run("older").report.exists()
    assert main(["report", "--platform", platform]) == 0  # the newest
    assert "run newer: completed" in capsys.readouterr().out and lake.run("newer").report.exists()
    for stranger in ("oldr", "../runs/older"):
        assert main(["report", "--platform", platform, "--run-id", stranger]) == 3
    assert "did you mean 'older'" in capsys.readouterr().err
    assert not (lake.runs() / "oldr").exists()
