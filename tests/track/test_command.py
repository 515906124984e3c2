"""``sparkring report``: which run is meant, and what a terminal is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordWriter
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
    assert lake.store.place(lake.run("older").report) in capsys.readouterr().out
    assert lake.store.facts(lake.run("older").report) is None
    assert main(["report", "--platform", platform, "--run-id", "older", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_id"] == "older" and lake.store.facts(lake.run("older").report) is not None
    assert main(["report", "--platform", platform]) == 0  # the newest
    assert "run newer: completed" in capsys.readouterr().out and lake.store.facts(lake.run("newer").report) is not None
    assert main(["report", "--platform", platform, "--run-id", "../runs/older"]) == 2
    assert main(["report", "--platform", platform, "--run-id", "oldr"]) == 3
    assert "did you mean 'older'" in capsys.readouterr().err
    assert not (lake.root / lake.runs() / "oldr").exists()


def test_no_text_of_a_model_or_an_error_steers_the_terminal(lake: Lake, platform: str, write_run: WriteRun,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    write_run(num_steps=3, text=" \x1b[2Jgone\x9b\r\n", error="rank 0: \x1b]0;title\x07")
    assert main(["report", "--platform", platform]) == 0
    assert main(["report", "--platform", platform, "--json"]) == 0
    assert main(["report", "--platform", platform, "--run-id", "\x1b[2J"]) == 2
    shown = "".join(capsys.readouterr())
    assert not {"\x1b", "\x9b", "\r", "\x07"} & set(shown)
    assert r"\x1b[2Jgone\x9b\r" in shown and r"rank 0: \x1b]0;title\x07" in shown and r"--run-id '\x1b[2J'" in shown


def test_that_the_model_shows_nothing_is_explained(lake: Lake, platform: str, write_run: WriteRun,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    write_run(num_steps=3)
    with RecordWriter(lake.run("run-1").live(0).record(0), 0, 0) as records:
        records.write("exhibits", step=3, shown=[], reason="the model takes 16 tokens only")
    assert main(["report", "--platform", platform]) == 0
    shown = capsys.readouterr().out
    assert "shown by the model" in shown and "nothing: the model takes 16 tokens only" in shown and "what it writes:" not in shown
