#!/usr/bin/env bash
# Puts a Horovod wheel that fits a Python environment into the cache, unless it is there, and prints its path.
#
# Takes: the environment's folder (torch, cmake, setuptools and wheel installed in it).
# Gives: the wheel's path on standard output; progress on standard error.
#
# The wheel is built from Horovod's source package, since none is published. It fits one Horovod, Python, torch,
# processor and set of options: these are the name of its folder in the cache, which every clone shares.
# With a CUDA build of torch, nvcc and NCCL present, gradients travel by NCCL; otherwise by Gloo.
#
# Settings: REAL_CXX, HOROVOD_NCCL_HOME, HOROVOD_CUDA_HOME, and any other that Horovod's build knows.
set -euo pipefail

version=0.28.1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
environment=$(cd "$1" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sparkring

ask_python() { "$environment/bin/python" -c "$1"; }

torch_version=$(ask_python 'import torch; print(torch.__version__)')
torch_cuda=$(ask_python 'import torch; print(torch.version.cuda or "")')
abi=$(ask_python 'import sysconfig; print(sysconfig.get_config_var("SOABI"))')  # Python, processor and C library

cuda_home=${HOROVOD_CUDA_HOME:-${CUDA_HOME:-/usr/local/cuda}}
nccl_home=${HOROVOD_NCCL_HOME:-}
if [[ -z $nccl_home && -n $torch_cuda ]]; then
    for place in /usr /usr/local "$cuda_home" "$environment"/lib/python3.11/site-packages/nvidia/nccl; do
        if [[ -e $place/include/nccl.h ]]; then nccl_home=$place; break; fi
    done
fi
if [[ -n $torch_cuda && -n $nccl_home && -x $cuda_home/bin/nvcc ]]; then transport=nccl; else transport=gloo; fi

folder=$cache/horovod-$version-$abi-torch$torch_version-$transport
finished_wheel() { find "$folder" -name 'horovod-*.whl' -print -quit 2>/dev/null; }

mkdir -p "$cache"
exec 8>"$folder.lock"
flock -w 1800 8 || { echo "another set-up has been building Horovod for 30 minutes; end it, or remove $folder.lock" >&2; exit 1; }
if [[ -n $(finished_wheel) ]]; then
    echo "      found in $cache" >&2
    finished_wheel
    exit
fi

echo "      building it from source with $transport: about 3 minutes on two cores, once per machine" >&2
# CMake and Horovod's scripts split paths at spaces: the build sees only names in this folder, which has none.
work=$(TMPDIR=/tmp mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
ln -s "$environment" "$work/environment"
cp "$here/cxx17" "$work/cxx17"
if [[ $transport == nccl ]]; then
    ln -s "$nccl_home" "$work/nccl"
    export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_HOME=$work/nccl HOROVOD_CUDA_HOME=$cuda_home
fi
unset MFLAGS MAKELEVEL  # ours may run inside make
export MAKEFLAGS=-j$(nproc) TMPDIR=$work CXX=$work/cxx17
export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITHOUT_MPI=1
export HOROVOD_WITH_GLOO=1 HOROVOD_CPU_OPERATIONS=GLOO
HOROVOD_CMAKE=$("$work/environment/bin/python" -c 'import cmake, os; print(os.path.join(cmake.CMAKE_BIN_DIR, "cmake"))')
export HOROVOD_CMAKE

# --no-cache-dir: pip keeps built wheels by name and version only, so it could hand out one made for another torch.
"$work/environment/bin/python" -m pip wheel --disable-pip-version-check --no-input --no-cache-dir --no-deps \
    --no-build-isolation --no-binary horovod --wheel-dir "$work/wheel" "horovod==$version" >&2

# A copy beside the target, then one rename: the cache holds a whole wheel or none.
rm -rf "$folder" "$folder".tmp-*
incoming=$(mktemp -d "$folder.tmp-XXXXXX")
cp "$work"/wheel/horovod-*.whl "$incoming/"
sync "$incoming"/*.whl
mv -T "$incoming" "$folder"
finished_wheel
