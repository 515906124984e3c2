#!/usr/bin/env bash
# Makes .venv: Python 3.11, every package of requirements.lock, Horovod, and this project installed editable.
#
# Takes: nothing; PYTHON may name the Python 3.11 to use.
# Gives: .venv, ready. Run again it does nothing (milliseconds); interrupted and run again it starts over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=.venv/setup.log
packages_stamp=.venv/packages.stamp  # which lock file, set-up scripts and folder .venv was made from
project_stamp=.venv/project.stamp    # which pyproject.toml the project was installed from
packages_key=$(printf '%s\n' "$PWD" | cat - requirements.lock setup/*.sh setup/cxx17 setup/find-spark-home | sha256sum)
project_key=$(sha256sum <pyproject.toml)

is_current() { [[ -x .venv/bin/python && -e $1 && $(<"$1") == "$2" ]]; }

is_java_17() {
    local java=java
    if [[ -n ${JAVA_HOME:-} ]]; then java=$JAVA_HOME/bin/java; fi
    local major
    major=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1) || return 1
    [[ -n $major && $major -ge 17 ]]
}

# The first Python 3.11 that runs (a shim of a version manager may not); of one in a virtual environment, the Python
# behind it, since .venv itself may be active and is about to be replaced.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 /usr/bin/python3.11 /usr/local/bin/python3.11 python3 python; do
        if "$candidate" -c 'import sys; print(sys._base_executable); sys.exit(sys.version_info[:2] != (3, 11))' \
            2>/dev/null; then return; fi
    done
}

# What the machine must have already: everything that is missing is said in one line, before anything is downloaded.
check_machine() {
    local missing=() packages=()
    python=$(find_python)
    if [[ -z $python ]]; then
        missing+=("Python 3.11") packages+=(python3.11 python3.11-venv python3.11-dev)
    else
        "$python" -c 'import ensurepip, venv' 2>/dev/null || { missing+=("Python's venv"); packages+=(python3.11-venv); }
        "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
            { missing+=("Python's C headers"); packages+=(python3.11-dev); }
    fi
    is_java_17 || { missing+=("Java 17 or newer${JAVA_HOME:+ (JAVA_HOME is $JAVA_HOME)}"); packages+=(openjdk-17-jre-headless); }
    "${REAL_CXX:-g++}" --version >/dev/null 2>&1 || { missing+=("g++"); packages+=(g++); }
    command -v make >/dev/null || { missing+=("make"); packages+=(make); }
    if ((${#missing[@]})); then
        local sudo="sudo " listed
        if ((EUID == 0)); then sudo=""; fi
        listed=$(printf '%s, ' "${missing[@]}")
        echo "setup: missing: ${listed%, }; install with: ${sudo}apt-get install -y ${packages[*]}" >&2
        exit 5
    fi
}

# Runs a command into the log; if it fails, shows the log's end.
quietly() {
    if ! "$@" >>"$log" 2>&1; then
        echo "setup: failed; the end of $PWD/$log:" >&2
        tail -n 25 "$log" >&2
        exit 1
    fi
}

pip_install() {
    quietly .venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off "$@"
}

install_packages() {
    check_machine
    rm -f "$packages_stamp"  # first, so that an interrupted removal is never taken for a finished set-up
    rm -rf .venv
    echo "[1/4] a Python environment in .venv, from $("$python" --version) ($python)"
    "$python" -m venv .venv || { rm -rf .venv; echo "setup: $python -m venv failed" >&2; exit 1; }

    echo "[2/4] the packages of requirements.lock: a download of about 1 GB the first time, a few minutes"
    # --no-deps: the lock file is complete, and two packages declare limits that contradict each other harmlessly
    # (petastorm wants setuptools < 70, torch >= 77).
    pip_install --no-deps -r requirements.lock
    # Where pip finds a CUDA build of torch, that build needs NVIDIA's libraries. They are torch's own, they differ by
    # build, and a CPU build has none: so they are not in the lock file and come from torch's declared dependencies.
    if ! .venv/bin/python -c 'import torch' >>"$log" 2>&1; then
        echo "      torch here is a CUDA build: its libraries too, about 3 GB more"
        pip_install -c requirements.lock "$(grep '^torch==' requirements.lock)"
    fi

    echo "[3/4] Horovod"
    local wheel
    wheel=$(setup/horovod.sh .venv)
    pip_install --no-deps "$wheel"
    cp setup/find-spark-home .venv/bin/  # spark-submit works without activating the environment
    echo "$packages_key" >"$packages_stamp"
}

install_project() {
    echo "[4/4] this project"
    pip_install --no-deps --no-build-isolation -e .
    # Spark's Java starts faster from an archive of its classes; without one everything works.
    if [[ ! -e .venv/share/sparkring/spark-classes.jsa ]] && ! .venv/bin/python setup/class_archive.py >>"$log" 2>&1; then
        echo "      no archive of Spark's classes could be made, so Spark will start more slowly; see $PWD/$log"
    fi
    echo "$project_key" >"$project_stamp"
}

trap 'echo "setup: interrupted; the next set-up starts over" >&2; exit 130' INT TERM HUP

# Two set-ups at once in one clone: the second waits for the first, then finds the work done.
exec 9<setup/setup.sh
flock -w 3600 9 || { echo "setup: another set-up of this clone has been running for an hour; end it" >&2; exit 4; }
if is_current "$packages_stamp" "$packages_key" && is_current "$project_stamp" "$project_key"; then exit; fi
SECONDS=0
is_current "$packages_stamp" "$packages_key" || install_packages
install_project
echo "set-up done in $SECONDS s"
