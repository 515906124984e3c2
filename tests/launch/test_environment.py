"""A run knows the code that it was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipelines.launch import environment
from pipelines.launch.environment import commit_of


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *command], check=True,
                          capture_output=True, text=True).stdout.strip()


@pytest.mark.processes
def test_a_checkout_gives_its_commit_and_whether_it_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "notes.txt").write_text("not part of the code")
    assert commit_of(tmp_path) == commit
    (tmp_path / "code.py").write_text("2")
    assert commit_of(tmp_path) == f"{commit} and changes"
    monkeypatch.setattr(environment, "SOURCE", tmp_path)
    assert environment.environment()["commit"] == f"{commit} and changes"


@pytest.mark.processes
def test_a_package_inside_another_checkout_does_not_take_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    installed = tmp_path / "venv" / "site-packages"
    installed.mkdir(parents=True)
    assert commit_of(installed) is None
    monkeypatch.setattr(environment, "SOURCE", installed)
    facts = environment.environment()
    assert "commit" not in facts and facts["torch"]


def test_a_checkout_on_a_machine_without_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) is None
