"""How Horovod is built: with which transport and why, what is remembered, and what is said. Compilers are stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.processes

PYTHON = r"""#!/usr/bin/env bash
# Answers what the scripts ask of Python; `pip wheel` writes down what it was told and makes a wheel, or breaks.
case "$*" in
    *torch.__version__*) echo "2.13.0+test" ;;
    *torch.version.cuda*) echo "$TORCH_CUDA" ;;
    *SOABI*) echo cpython-311-test ;;
    *get_arch_list*) printf 'sm_70\nsm_80\nsm_90\n' ;;
    *CMAKE_BIN_DIR*) echo /cmake ;;
    *"pip download"*)
        while [[ $1 != --dest ]]; do shift; done
        mkdir -p horovod-0.28.1/cmake/Modules
        echo 'torch.version.cuda and CUDA_HOME is not None' >horovod-0.28.1/cmake/Modules/FindPytorch.cmake
        tar -czf "$2/horovod-0.28.1.tar.gz" horovod-0.28.1 ;;
    *"pip wheel"*)
        gpu=${HOROVOD_GPU_OPERATIONS:-GLOO}
        echo "what the build says"
        echo "$gpu" >>"$RECORD/builds"
        env >"$RECORD/$gpu"
        cat "${@: -1}/cmake/Modules/FindPytorch.cmake" >"$RECORD/$gpu-torch"
        if [[ $gpu == NCCL ]]; then
            (cd "$HOROVOD_NCCL_HOME" && find -L . -type f) >"$RECORD/nccl"
            (cd "$HOROVOD_CUDA_HOME" && find -L . -type f) >"$RECORD/cuda"
            "$CUDACXX" -std=c++11 kernels.cu >"$RECORD/nvcc"
        fi
        if [[ " $BROKEN " == *" $gpu "* ]]; then echo "what went wrong" >&2; exit 1; fi
        while [[ $1 != --wheel-dir ]]; do shift; done
        mkdir -p "$2" && touch "$2/horovod-0-any.whl" ;;
    *) exit 99 ;;
esac
"""
NVCC = """#!/bin/sh
case "$1" in
    --version) echo "Cuda compilation tools, release 13.0, V13.0.88" ;;
    --list-gpu-code) printf 'sm_80\\nsm_86\\nsm_90\\n' ;;
    *) echo "$@" ;;
esac
"""
NCCL_H = "#define NCCL_MAJOR 2\n#define NCCL_MINOR 29\n#define NCCL_PATCH 7\n"


@dataclass
class Machine:
    """A machine with stand-ins for torch, the CUDA toolkit and NCCL, all in folders whose names have a space."""

    place: Path

    def __post_init__(self) -> None:
        (self.place / "bin").mkdir()
        shutil.copytree(ROOT / "setup", self.place / "setup", ignore=shutil.ignore_patterns("__pycache__"))
        self.write("env/bin/python", PYTHON)
        self.write("cuda/bin/nvcc", NVCC)
        self.write("cuda/bin/ptxas", "")
        self.write("cuda/include/cuda_runtime.h", "")
        self.write("env/lib/python3.11/site-packages/nvidia/nccl/include/nccl.h", NCCL_H)
        self.write("env/lib/python3.11/site-packages/nvidia/nccl/lib/libnccl.so.2", "")
        (self.place / "record").mkdir()
        self.settings = {"TORCH_CUDA": "13.0", "HOROVOD_CUDA_HOME": str(self.place / "cuda"), "BROKEN": "",
                         "RECORD": str(self.place / "record"), "HOME": str(self.place / "home"),
                         "PATH": f"{self.place / 'bin'}:/usr/bin:/bin"}

    def write(self, name: str, text: str) -> None:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def build(self, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["setup/horovod.sh", "env"], cwd=self.place, env=self.settings | settings, text=True,
                              capture_output=True, timeout=60, stdin=subprocess.DEVNULL)

    def recorded(self, name: str) -> list[str]:
        path = self.place / "record" / name
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    @property
    def transport(self) -> str:
        return (self.place / "env/horovod-transport").read_text(encoding="utf-8").strip()

    @property
    def logs(self) -> list[Path]:
        return sorted((self.place / "home/.cache/sparkring").glob("*.log"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "a machine").mkdir()
    return Machine(tmp_path / "a machine")


def test_with_toolkit_and_nccl_the_build_gets_what_makes_it_succeed(machine: Machine):
    ended = machine.build()
    assert Path(ended.stdout.strip()).name == "horovod-0-any.whl", ended.stderr
    told = dict(line.split("=", 1) for line in machine.recorded("NCCL") if "=" in line)
    assert (told["HOROVOD_GPU_OPERATIONS"], told["HOROVOD_NCCL_LINK"], told["HOROVOD_WITH_GLOO"]) == ("NCCL", "SHARED", "1")
    assert told["CUDA_HOME"] == told["HOROVOD_CUDA_HOME"]
    assert " " not in told["CUDA_HOME"] + told["HOROVOD_NCCL_HOME"] + told["CXX"]  # CMake would split it
    assert {"./lib/libnccl.so", "./lib/libnccl.so.2", "./include/nccl.h"} == set(machine.recorded("nccl"))
    assert {"./bin/nvcc", "./bin/ptxas", "./include/cuda_runtime.h"} == set(machine.recorded("cuda"))
    assert machine.recorded("nvcc") == ["-std=c++17 kernels.cu"]
    assert machine.recorded("NCCL-torch") == ["torch.version.cuda and CUDA_HOME is not None"]
    assert machine.transport == "nccl: NCCL 2.29.7, CUDA 13.0, GPU architectures 80,90"


def test_the_gpus_present_are_built_for_else_those_of_torch_that_the_toolkit_knows_else_what_is_set(machine: Machine):
    machine.build()
    machine.write("bin/nvidia-smi", "#!/bin/sh\nprintf '9.0\\n9.0\\n8.6\\n'\n")
    machine.build()
    machine.write("bin/nvidia-smi", "#!/bin/sh\necho 'No devices were found'; exit 6\n")
    machine.build()
    machine.build(HOROVOD_BUILD_CUDA_CC_LIST="86")
    wheels = sorted(path.parent.name.partition("sm")[2] for path in (machine.place / "home").rglob("*.whl"))
    assert wheels == ["80.90", "86", "86.90"]  # a wheel of its own for each, and none twice
    assert len(machine.recorded("builds")) == 3


def test_a_build_says_one_line_and_its_log_is_in_a_file(machine: Machine):
    ended = machine.build()
    assert len(ended.stderr.splitlines()) == 1 and "building it from source with nccl" in ended.stderr
    (log,) = machine.logs
    assert str(log) in ended.stderr and "what the build says" in log.read_text(encoding="utf-8")
    assert "found in" in machine.build().stderr
    assert machine.recorded("builds") == ["NCCL"]


def test_where_nccl_cannot_be_built_one_line_says_so_and_gloo_is_built(machine: Machine):
    ended = machine.build(BROKEN="NCCL")
    assert ended.returncode == 0 and Path(ended.stdout.strip()).parent.name.endswith("-gloo")
    assert "what went wrong\n" not in ended.stderr and "what the build says" not in ended.stderr
    assert machine.recorded("GLOO-torch") == ["torch.version.cuda and False"]  # no CUDA compiler is asked for again
    failed = next(log for log in machine.logs if "failed" in log.name)
    (line,) = [line for line in ended.stderr.splitlines() if "could not be built with NCCL" in line]
    assert str(failed) in line and "Gloo" in line
    assert failed.read_text(encoding="utf-8").endswith("what went wrong\n")
    assert machine.transport.startswith("gloo: it could not be built with NCCL") and str(failed) in machine.transport


def test_a_build_that_failed_is_not_tried_again_until_its_log_is_removed_or_the_scripts_change(machine: Machine):
    machine.build(BROKEN="NCCL")
    again = machine.build()
    assert machine.recorded("builds") == ["NCCL", "GLOO"]
    assert "could not be built with NCCL" in again.stderr and "found in" in again.stderr
    next(log for log in machine.logs if "failed" in log.name).unlink()
    assert machine.build(BROKEN="NCCL").returncode == 0
    assert machine.recorded("builds") == ["NCCL", "GLOO", "NCCL"]
    with open(machine.place / "setup/build_horovod.sh", "a", encoding="utf-8") as script:
        script.write("# mended\n")
    assert "nccl" in machine.build().stdout and machine.transport.startswith("nccl: ")
    assert machine.recorded("builds") == ["NCCL", "GLOO", "NCCL", "NCCL"]


def test_without_a_transport_left_one_line_names_the_log(machine: Machine):
    ended = machine.build(BROKEN="NCCL GLOO")
    assert ended.returncode == 1 and ended.stdout == ""
    assert "what the build says" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("setup: Horovod could not be built; what went wrong: ")
    assert Path(last.rpartition(": ")[2]).read_text(encoding="utf-8").endswith("what went wrong\n")
    assert not (machine.place / "env/horovod-transport").exists()


@pytest.mark.parametrize(("missing", "settings", "reason"), [
    ("", {"TORCH_CUDA": ""}, "torch is a CPU build"),
    ("cuda/bin/nvcc", {}, "there is no CUDA toolkit (nvcc)"),
    ("", {"TORCH_CUDA": "12.8"}, "is 13.0, but torch was built with 12.8"),
    ("", {"HOROVOD_NCCL_HOME": "/nowhere"}, "there is no NCCL (nccl.h)"),
])
def test_without_one_of_its_parts_gloo_is_built_and_the_reason_kept(
        missing: str, settings: dict[str, str], reason: str, machine: Machine):
    if missing:
        (machine.place / missing).unlink()
    ended = machine.build(**settings)
    assert ended.returncode == 0 and machine.recorded("builds") == ["GLOO"]
    assert machine.transport.startswith("gloo: ") and reason in machine.transport


def test_a_toolkit_is_found_behind_the_nvcc_on_the_path(machine: Machine):
    (machine.place / "bin/nvcc").symlink_to(machine.place / "cuda/bin/nvcc")
    del machine.settings["HOROVOD_CUDA_HOME"]
    machine.build()
    told = dict(line.split("=", 1) for line in machine.recorded("NCCL") if "=" in line)
    assert told["REAL_NVCC"] == os.fspath(machine.place / "cuda/bin/nvcc")
