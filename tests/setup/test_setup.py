"""Set-up: what it asks of the machine, what it builds once, and the lock file it installs."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from pipelines.config.datasets import InputSource

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "env", "sed", "head", "cat", "sha256sum", "dirname", "flock", "rm", "mkdir", "mktemp", "find", "ls")


def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    return {canonicalize_name(name): version for name, _, version in (pin.partition("==") for pin in pins if pin)}


def horovod_version() -> str:
    found = re.search(r"^version=(.+)$", (ROOT / "setup/horovod.sh").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that set-up reads, in a folder whose name has a space."""
    folder = tmp_path / "a clone"
    shutil.copytree(ROOT / "setup", folder / "setup", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.lock", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH on which only the system's everyday tools are."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(str(shutil.which(tool)))
    return folder


def run(command: list[str | Path], cwd: Path, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env={key: str(value) for key, value in environment.items()},
                          capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_everything_missing_is_said_in_one_line_with_its_command_before_anything_is_made(clone: Path, bare_path: Path):
    ended = run(["setup/setup.sh"], clone, PATH=bare_path, HOME=clone, PYTHON=sys.executable)
    assert ended.returncode == 5
    assert len(ended.stderr.splitlines()) == 1
    assert "Java 17 or newer, g++, make" in ended.stderr
    assert "apt-get install -y openjdk-17-jre-headless g++ make" in ended.stderr
    assert not (clone / ".venv").exists()


def test_an_old_java_counts_as_missing(clone: Path, bare_path: Path):
    for tool, says in (("java", 'openjdk version "11.0.2" 2019-01-15'), ("g++", ""), ("make", "")):
        (bare_path / tool).write_text(f"#!/bin/sh\necho '{says}' >&2\n", encoding="utf-8")
        (bare_path / tool).chmod(0o755)
    ended = run(["setup/setup.sh"], clone, PATH=bare_path, HOME=clone, PYTHON=sys.executable)
    assert ended.stderr.startswith("setup: missing: Java 17 or newer; install with: ")


def test_a_finished_set_up_does_nothing_again_until_the_lock_file_changes(clone: Path, bare_path: Path):
    keys = run(["bash", "-c", """
        printf '%s\\n' "$PWD" | cat - requirements.lock setup/*.sh setup/cxx17 setup/find-spark-home | sha256sum
        sha256sum <pyproject.toml"""], clone, PATH=bare_path).stdout.splitlines()
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(sys.executable)
    (clone / ".venv/packages.stamp").write_text(keys[0], encoding="utf-8")
    (clone / ".venv/project.stamp").write_text(keys[1], encoding="utf-8")
    ended = run(["setup/setup.sh"], clone, PATH=bare_path, HOME=clone)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    with open(clone / "requirements.lock", "a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert "missing" in run(["setup/setup.sh"], clone, PATH=bare_path, HOME=clone).stderr


def test_the_compiler_wrapper_raises_the_standard_and_keeps_every_other_argument(tmp_path: Path):
    given_arguments = ["-O2", "-std=c++14", "-I/a folder", "-Wl,-rpath,/somewhere", "-Wl,-soname,x", "file.cc"]
    ended = run([ROOT / "setup/cxx17", *given_arguments], tmp_path, PATH=os.environ["PATH"], REAL_CXX="printf")
    assert ended.stdout == "-O2"  # printf's format; its other arguments are unused
    probe = tmp_path / "compiler"
    probe.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    probe.chmod(0o755)
    ended = run([ROOT / "setup/cxx17", *given_arguments], tmp_path, PATH=os.environ["PATH"], REAL_CXX=probe)
    assert ended.stdout.splitlines() == ["-O2", "-std=c++17", "-I/a folder", "-Wl,-soname,x", "file.cc"]


def test_a_horovod_in_the_cache_is_taken_without_a_build(tmp_path: Path, bare_path: Path):
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to(sys.executable)
    key = f"horovod-{horovod_version()}-{sysconfig.get_config_var('SOABI')}-torch{torch.__version__}-gloo"
    wheel = tmp_path / "cache/sparkring" / key / "horovod-0-any.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b"")
    ended = run([ROOT / "setup/horovod.sh", environment], tmp_path, PATH=bare_path, HOME=tmp_path,
                PYTHONPATH=sysconfig.get_path("purelib"), XDG_CACHE_HOME=tmp_path / "cache", HOROVOD_CUDA_HOME="/nowhere")
    assert ended.stdout.strip() == str(wheel), ended.stderr


def test_the_lock_file_holds_every_dependency_in_the_declared_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    locked = lock() | {"horovod": horovod_version()}
    assert [str(each) for each in declared
            if not each.specifier.contains(locked.get(canonicalize_name(each.name), "none given"))] == []


def test_the_lock_file_is_complete_and_holds_nothing_else():
    locked = lock()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = [Requirement(text).name for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    waiting = [canonicalize_name(name) for name in [*direct, "cmake", "setuptools", "wheel"]]
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        if name.startswith(("nvidia-", "cuda-", "triton")):
            continue  # a CUDA build of torch brings these
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    of_cuda = {name for name in needed if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert needed - of_cuda - {"horovod"} == set(locked)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_a_path_of_any_characters_reaches_the_recipe_unchanged(path: str):
    sys.path.insert(0, str(ROOT / "setup"))
    try:
        from inputs import inputs_override
    finally:
        sys.path.pop(0)
    key, _, value = inputs_override(shlex.quote(path)).partition("=")
    [source] = [InputSource.model_validate(each) for each in yaml.safe_load(value)]
    assert (key, source.path) == ("prepare.inputs", path)


@pytest.mark.parametrize(("data", "inputs"), [
    ("", []),
    ("it's here", [("it's here", "text")]),
    ("a.jsonl 'b c.parquet' d.txt", [("a.jsonl", "jsonl"), ("b c.parquet", "parquet"), ("d.txt", "text")]),
])
def test_make_demo_hands_the_data_to_the_job(data: str, inputs: list[tuple[str, str]], clone: Path):
    (clone / "it's here").mkdir()
    (clone / "setup/setup.sh").write_text("#!/bin/sh\n", encoding="utf-8")
    (clone / "jobs").mkdir()
    (clone / "jobs/pipeline.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))", encoding="utf-8")
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(sys.executable)
    ended = run(["make", "demo", *([f"DATA={data}"] if data else [])], clone, PATH=os.environ["PATH"], HOME=clone)
    arguments = yaml.safe_load(ended.stdout)
    assert arguments[:4] == ["--recipe", "conf/recipes/gpt-demo.yaml", "--platform", "conf/platforms/local.yaml"]
    given_inputs = [each for override in arguments[5:] for each in yaml.safe_load(override.partition("=")[2])]
    assert [(each["path"], each["format"]) for each in given_inputs] == inputs


@pytest.mark.parametrize(("data", "split"), [("", ""), ("my pictures", "hash"), ("my divided pictures", "folder")])
def test_make_demo_images_trains_and_evaluates_on_the_same(data: str, split: str, clone: Path):
    (clone / "my pictures/train").mkdir(parents=True)  # a class, if anything
    (clone / "my divided pictures/train/cat").mkdir(parents=True)
    (clone / "setup/setup.sh").write_text("#!/bin/sh\n", encoding="utf-8")
    (clone / "setup/digits.py").write_text("print('digits')", encoding="utf-8")
    (clone / "jobs").mkdir()
    for job in ("pipeline", "evaluate"):
        (clone / f"jobs/{job}.py").write_text(f"import json, sys; print(json.dumps(['{job}', *sys.argv[1:]]))", encoding="utf-8")
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(sys.executable)
    ended = run(["make", "demo-images", *([f"DATA={data}"] if data else [])], clone, PATH=os.environ["PATH"], HOME=clone)
    *written, trained, evaluated = ended.stdout.splitlines()
    assert written == ([] if data else ["digits"])
    assert (trained, evaluated) == tuple(ended.stdout.splitlines()[-2:])
    (job, *options), (then, *again) = json.loads(trained), json.loads(evaluated)
    assert (job, then, options) == ("pipeline", "evaluate", again)
    assert options[:4] == ["--recipe", "conf/recipes/digits.yaml", "--platform", "conf/platforms/local.yaml"]
    given_inputs = [f'prepare.inputs=[{{"path": "{data}"}}]', f"prepare.split.kind={split}", "prepare.size=[32, 32]",
                    "prepare.channels=3"]
    assert options[5::2] == (given_inputs if data else [])


def test_the_digits_become_a_folder_of_pictures_for_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "setup"))
    import digits
    rows = [[float(brightness)] * 64 + [float(digit)] for brightness, digit in ((0, 3), (8, 3), (16, 7))]
    table = "".join(",".join(map(str, row)) + "\n" for row in rows)
    monkeypatch.setattr(digits, "digits_file", lambda: gzip.compress(table.encode(), mtime=0))
    with pytest.raises(SystemExit, match="is not the file that it was"):
        digits.write_digits(tmp_path)
    monkeypatch.setattr(digits, "SHA256", hashlib.sha256(gzip.compress(table.encode(), mtime=0)).hexdigest())
    assert digits.write_digits(tmp_path) == 3
    found = {str(path.relative_to(tmp_path)): set(Image.open(path).getdata()) for path in tmp_path.rglob("*.png")}
    assert found == {"3/0000.png": {0}, "3/0001.png": {128}, "7/0002.png": {255}}


def test_make_alone_lists_every_target(clone: Path):
    listed = run(["make"], clone, PATH=os.environ["PATH"]).stdout
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared and re.findall(r"make ([\w-]+)", listed) == declared[1].split()
