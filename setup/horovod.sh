#!/usr/bin/env bash
# Puts a Horovod wheel that fits a Python environment into the cache, unless it is there, and prints its path.
#
# Takes: the environment's folder (torch, cmake, setuptools and wheel installed in it).
# Gives: the wheel's path on standard output; progress on standard error; ENVIRONMENT/horovod-transport, one line which says
#        by what gradients travel and why. What the build itself says goes to a log in the cache.
#
# The wheel is built from Horovod's source package, since none is published. It fits one Horovod, Python, torch,
# processor and set of options: these are the name of its folder in the cache, which every clone shares.
# With a CUDA build of torch, its CUDA toolkit and NCCL present, gradients travel by NCCL; otherwise, or where that cannot be
# built, by Gloo. A build with NCCL that failed is not tried again while its log is in the cache.
#
# Settings: REAL_CXX, HOROVOD_NCCL_HOME, HOROVOD_CUDA_HOME, HOROVOD_BUILD_CUDA_CC_LIST (such as 80,90), and any other that
# Horovod's build knows.
set -euo pipefail

version=0.28.1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
environment=$(cd "$1" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sparkring
export version environment transport cuda_home nccl_home architectures folder  # for build_horovod.sh

say() { echo "      $1" >&2; }
ask_python() { "$environment/bin/python" -c "$1"; }

# The CUDA toolkit: a folder with compiler and headers. The nvcc on PATH may be a script that starts one elsewhere.
find_cuda() {
    local place on_path
    on_path=$(readlink -f "$(command -v nvcc)" 2>/dev/null || true)
    for place in "${HOROVOD_CUDA_HOME:-${CUDA_HOME:-${on_path%/bin/nvcc}}}" /usr/local/cuda /usr/local/cuda-*; do
        if [[ -x $place/bin/nvcc && -e $place/include/cuda_runtime.h ]]; then echo "$place"; fi
        if [[ -n ${HOROVOD_CUDA_HOME:-} ]]; then break; fi
    done | sed -n 1p
}

# torch's own NCCL comes first: it is the one that is loaded when ranks run.
find_nccl() {
    local place
    for place in "${HOROVOD_NCCL_HOME:-$environment/lib/python3.11/site-packages/nvidia/nccl}" /usr /usr/local "$cuda_home"; do
        if [[ -e $place/include/nccl.h ]]; then echo "$place"; fi
        if [[ -n ${HOROVOD_NCCL_HOME:-} ]]; then break; fi
    done | sed -n 1p
}

# The GPUs' architectures, such as 80,90. Without a GPU, those that torch was built for: no other GPU can run torch either.
find_architectures() {
    local found
    found=$(timeout 20 nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | grep -x '[0-9]\+') ||
        found=$(ask_python 'import torch; print(*torch.cuda.get_arch_list(), sep="\n")' | sed -n 's/^sm_\([0-9]*\)$/\1/p')
    "$cuda_home/bin/nvcc" --list-gpu-code | sed 's/^sm_//' | grep -x -F "$found" | sort -nu | paste -sd, || true
}

# Sets transport, why, and options: what these add to the name in the cache.
choose_transport() {
    local torch_cuda cuda_version nccl_version
    transport=gloo options=gloo
    torch_cuda=$(ask_python 'import torch; print(torch.version.cuda or "")')
    if [[ -z $torch_cuda ]]; then why="torch is a CPU build"; return; fi
    cuda_home=$(find_cuda)
    if [[ -z $cuda_home ]]; then why="there is no CUDA toolkit (nvcc)"; return; fi
    cuda_version=$("$cuda_home/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    if [[ ${cuda_version%%.*} != "${torch_cuda%%.*}" ]]; then
        why="the CUDA toolkit in $cuda_home is $cuda_version, but torch was built with $torch_cuda"
        return
    fi
    nccl_home=$(find_nccl)
    if [[ -z $nccl_home ]]; then why="there is no NCCL (nccl.h)"; return; fi
    nccl_version=$(sed -n 's/^#define NCCL_\(MAJOR\|MINOR\|PATCH\) *\([0-9]*\).*/\2/p' "$nccl_home/include/nccl.h" | paste -sd.)
    architectures=${HOROVOD_BUILD_CUDA_CC_LIST:-$(find_architectures)}
    if [[ -z $architectures ]]; then why="the CUDA toolkit in $cuda_home cannot compile for this GPU"; return; fi
    transport=nccl options=nccl$nccl_version-cuda$cuda_version-sm${architectures//,/.}
    why="NCCL $nccl_version, CUDA $cuda_version, GPU architectures $architectures"
}

# Names the places in the cache and takes the lock of the wheel's.
open_cache() {
    folder=$cache/horovod-$version-$abi-torch$torch_version-$options
    # Other scripts are another attempt: they are part of the name.
    failed=$folder-$(cat "$here/horovod.sh" "$here/build_horovod.sh" "$here/cxx17" | sha256sum | head -c 8)-failed.log
    mkdir -p "$cache"
    exec 8>"$folder.lock"
    flock -w 1800 8 || { echo "another set-up has been building Horovod for 30 minutes; end it, or remove $folder.lock" >&2; exit 1; }
}

finished_wheel() { find "$folder" -name 'horovod-*.whl' -print -quit 2>/dev/null; }

# Whether the wheel is in the cache, maybe after building it (for about $1 minutes).
have_wheel() {
    if [[ -n $(finished_wheel) ]]; then say "found in $cache"; return; fi
    say "building it from source with $transport: about $1 minutes on two cores, once per machine; log: $folder.log"
    "$here/build_horovod.sh" >"$folder.log" 2>&1
}

torch_version=$(ask_python 'import torch; print(torch.__version__)')
abi=$(ask_python 'import sysconfig; print(sysconfig.get_config_var("SOABI"))')  # Python, processor and C library
choose_transport
open_cache
if [[ $transport == nccl && ! -e $failed ]] && ! have_wheel 6; then mv "$folder.log" "$failed"; fi
if [[ $transport == nccl && -e $failed ]]; then
    say "it could not be built with NCCL, so gradients travel by Gloo here; what went wrong: $failed"
    transport=gloo options=gloo why="it could not be built with NCCL (what went wrong: $failed; remove that file to try again)"
    open_cache
fi
if [[ $transport == gloo ]] && ! have_wheel 3; then
    echo "setup: Horovod could not be built; what went wrong: $folder.log" >&2
    exit 1
fi
echo "$transport: $why" >"$environment/horovod-transport"
finished_wheel
