#!/usr/bin/env bash
# Builds Horovod's wheel from its source package (for horovod.sh alone, which says what is built and keeps its output).
#
# Takes: variables: version; environment, in which it is built; transport, gloo or nccl; for nccl cuda_home, nccl_home and
#        architectures; folder, where the wheel shall be.
# Gives: the folder, with the wheel in it; or nothing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# CMake and Horovod's scripts split paths at spaces: the build sees only names in this folder, which has none.
work=$(TMPDIR=/tmp mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

with_nccl() {
    # FindNCCL looks for libnccl.so, but NVIDIA's Python package has libnccl.so.2 alone.
    mkdir -p "$work/nccl/lib" "$work/cuda/bin"
    ln -s "$nccl_home/include" "$work/nccl/include"
    local library
    library=$(find "$nccl_home"/lib*/ -name 'libnccl.so*' -print -quit)
    ln -s "$library" "$work/nccl/lib/libnccl.so"
    ln -s "$library" "$work/nccl/lib/libnccl.so.2"
    # The CUDA toolkit, but its nvcc raises the C++ standard.
    find "$cuda_home/" -mindepth 1 -maxdepth 1 ! -name bin -exec ln -s {} "$work/cuda/" \;
    find "$cuda_home/bin/" -mindepth 1 -maxdepth 1 ! -name nvcc -exec ln -s {} "$work/cuda/bin/" \;
    cp "$here/cxx17" "$work/cuda/bin/nvcc"
    export REAL_NVCC=$cuda_home/bin/nvcc CUDACXX=$work/cuda/bin/nvcc
    # torch names CUDA's libraries by CUDA_HOME; without it, it guesses from the nvcc on PATH, which may be a script elsewhere.
    export CUDA_HOME=$work/cuda HOROVOD_CUDA_HOME=$work/cuda HOROVOD_BUILD_CUDA_CC_LIST=$architectures
    export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_HOME=$work/nccl HOROVOD_NCCL_LINK=SHARED
}

ln -s "$environment" "$work/environment"
cp "$here/cxx17" "$work/cxx17"
if [[ $transport == nccl ]]; then with_nccl; fi
unset MFLAGS MAKELEVEL  # ours may run inside make
MAKEFLAGS=-j$(nproc)
HOROVOD_CMAKE=$("$work/environment/bin/python" -c 'import cmake, os; print(os.path.join(cmake.CMAKE_BIN_DIR, "cmake"))')
export MAKEFLAGS HOROVOD_CMAKE TMPDIR=$work CXX=$work/cxx17
export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITHOUT_MPI=1
export HOROVOD_WITH_GLOO=1 HOROVOD_CPU_OPERATIONS=GLOO

pip() { timeout 2h "$work/environment/bin/python" -m pip "$@"; }
options=(--disable-pip-version-check --no-input --no-deps --no-build-isolation)

pip download "${options[@]}" --no-binary horovod --dest "$work" "horovod==$version"
tar -xzf "$work/horovod-$version.tar.gz" -C "$work"
if [[ $transport == gloo ]]; then
    # A CUDA build of torch is reason enough for Horovod to want a CUDA compiler, and that may be what has just failed.
    sed -i 's/CUDA_HOME is not None/False/' "$work/horovod-$version/cmake/Modules/FindPytorch.cmake"
fi
# --no-cache-dir: pip keeps built wheels by name and version only, so it could hand out one made for another torch.
pip wheel "${options[@]}" --no-cache-dir --wheel-dir "$work/wheel" "$work/horovod-$version"

# A copy beside the target, then one rename: the cache holds a whole wheel or none.
rm -rf "$folder" "$folder".tmp-*
incoming=$(mktemp -d "$folder.tmp-XXXXXX")
cp "$work"/wheel/horovod-*.whl "$incoming/"
sync "$incoming"/*.whl
mv -T "$incoming" "$folder"
