#!/usr/bin/env bash
# Build Horovod for the torch that PYTHON has, or take the wheel from the cache, and install it.
#
#   PYTHON=.venv/bin/python hpc/build_horovod.sh             # Gloo
#   HOROVOD_MPI=1 PYTHON=... hpc/build_horovod.sh            # Gloo and MPI
#   HOROVOD_CUDA=1 PYTHON=... hpc/build_horovod.sh           # Gloo and NCCL; needs nvcc and NCCL's headers
#
# Horovod 0.28.1 (2023) is the last release; out of the box it does not build against today's torch and cmake. About
# three minutes of CPU the first time, seconds from the cache afterwards.
#   EOSR_CACHE   folder of the wheels; default ~/.cache/eosr (on a cluster: one that the build host and the jobs see)
#   JOBS         compilers at once; default: all cores
#   REBUILD=1    build even if the cache has it
set -euo pipefail

PYTHON=${PYTHON:-python3}
VERSION=0.28.1
SHA256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0 # of the source archive on PyPI
RECIPE=1 # to be raised whenever an edit below changes: it is part of the cache's key
JOBS=${JOBS:-$(nproc)}
CACHE=${EOSR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eosr}/horovod

die() { echo "build_horovod: $*" >&2; exit 1; }

torch=$("$PYTHON" -c 'import torch; print(torch.__version__)' 2>/dev/null) \
  || die "$PYTHON has no torch. Install eosr first: pip install -c constraints.txt -e ."
compiler=${CXX:-c++}
command -v "$compiler" >/dev/null || die "there is no C++ compiler. On Debian: apt-get install g++"
command -v make >/dev/null || die "there is no make. On Debian: apt-get install make"
[ -f "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] \
  || die "$PYTHON has no Python.h. On Debian: apt-get install python3-dev"
kind=gloo
if [ "${HOROVOD_MPI:-0}" = 1 ]; then
  command -v mpicxx >/dev/null || die "HOROVOD_MPI=1 needs MPI. On Debian: apt-get install libopenmpi-dev openmpi-bin"
  kind=$kind-mpi-$(mpicxx -show 2>/dev/null | cksum | cut -d' ' -f1)
fi
if [ "${HOROVOD_CUDA:-0}" = 1 ]; then
  command -v nvcc >/dev/null || die "HOROVOD_CUDA=1 needs nvcc. Load the site's CUDA module."
  kind=$kind-nccl
fi

python_tag=$("$PYTHON" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
key=$VERSION-torch$torch-$python_tag-$kind-$(uname -m)-$(basename "$compiler")$("$compiler" -dumpversion)-recipe$RECIPE
store=$CACHE/$key
mkdir -p "$store" || die "$store cannot be made. Give another folder with EOSR_CACHE."
pip() { "$PYTHON" -m pip --quiet --disable-pip-version-check "$@"; }

wheel=$(find "$store" -name 'horovod-*.whl' | head -1)
if [ -z "$wheel" ] || [ "${REBUILD:-0}" = 1 ]; then
  # What Horovod's setup.py imports, and what Horovod itself needs to run.
  pip install 'setuptools>=70.1' packaging wheel cloudpickle psutil pyyaml 'cffi>=1.4'
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  echo "horovod==$VERSION --hash=sha256:$SHA256" >"$work/requirements.txt"
  pip download --no-deps --no-binary :all: --no-build-isolation --require-hashes -r "$work/requirements.txt" \
    --dest "$work" || die "the source of Horovod $VERSION cannot be had from the package index (network, or checksum)."
  tar -xzf "$work/horovod-$VERSION.tar.gz" -C "$work"
  source=$work/horovod-$VERSION

  # torch's headers need C++17 since 2.1; Horovod asks CMake for 14.
  sed -i 's/set(CMAKE_CXX_STANDARD 14)/set(CMAKE_CXX_STANDARD 17)/' "$source/CMakeLists.txt" "$source/horovod/torch/CMakeLists.txt"
  [ "$(cat "$source/CMakeLists.txt" "$source/horovod/torch/CMakeLists.txt" | grep -c '^ *set(CMAKE_CXX_STANDARD 17)')" = 2 ] \
    || die "the change to C++17 did not apply; is this Horovod $VERSION?"
  # reserve() leaves the list of ranks empty, so with Gloo the stall check never names a missing rank, nor ends the job.
  sed -i 's/global_ranks_\.reserve(size_)/global_ranks_.resize(size_)/' "$source/horovod/common/gloo/gloo_controller.cc"
  grep -q 'global_ranks_\.resize(size_)' "$source/horovod/common/gloo/gloo_controller.cc" \
    || die "the mending of the stall check did not apply; is this Horovod $VERSION?"
  # Debug information makes the wheel 60 times as large.
  sed -i "s/else 'RelWithDebInfo'/else 'Release'/" "$source/setup.py"
  grep -q "else 'Release'" "$source/setup.py" || die "the release build did not apply; is this Horovod $VERSION?"

  if ! command -v cmake >/dev/null; then
    # Beside the build, not into the environment of $PYTHON; a venv would need Debian's python3-venv.
    pip install --target "$work/cmake" cmake \
      || die "there is no cmake, and none can be had from the package index. On Debian: apt-get install cmake"
    export PATH=$work/cmake/cmake/data/bin:$PATH
  fi
  # The Gloo that Horovod carries asks for cmake 2.8.12, which cmake >= 4 refuses.
  export CMAKE_POLICY_VERSION_MINIMUM=3.5
  # gcc >= 13 no longer includes it by way of others.
  export CXXFLAGS="${CXXFLAGS:-} -include cstdint"
  # Horovod's setup.py would start eight compilers, and hands make's options to whatever CMAKE_GENERATOR names.
  export MAKEFLAGS=-j$JOBS
  unset CMAKE_GENERATOR || true
  export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1
  if [ "${HOROVOD_MPI:-0}" = 1 ]; then export HOROVOD_WITH_MPI=1; else export HOROVOD_WITHOUT_MPI=1; fi
  if [ "${HOROVOD_CUDA:-0}" = 1 ]; then export HOROVOD_GPU_OPERATIONS=NCCL; fi

  # The name has host and process in it, and the wheel gets its own only when whole: others may build or look at the
  # same time, on another node even.
  part=$(mktemp "$store/$(hostname).XXXXXX")
  trap 'rm -rf "$work" "$part"' EXIT
  log=$store/build-$(basename "$part").log
  echo "build_horovod: building for torch $torch ($kind, $JOBS compilers), minutes; log: $log" >&2
  SECONDS=0
  "$PYTHON" -m pip wheel -v --use-pep517 --no-build-isolation --no-deps -w "$work/out" "$source" >"$log" 2>&1 \
    || { tail -30 "$log" >&2; die "the build failed; see $log"; }
  built=$(find "$work/out" -name 'horovod-*.whl')
  cp "$built" "$part"
  chmod 644 "$part" # mktemp's files are for their owner only
  wheel=$store/$(basename "$built")
  mv "$part" "$wheel"
  mv "$log" "$store/build.log"
  echo "build_horovod: built in $SECONDS s, $(stat -c %s "$wheel") bytes" >&2
fi
pip install cloudpickle psutil pyyaml 'cffi>=1.4' packaging
pip install --no-deps --force-reinstall --no-index "$wheel"
"$PYTHON" -c 'import horovod.torch as hvd; hvd.init(); assert hvd.size() == 1 and hvd.gloo_built()' \
  || die "the wheel $wheel does not run here. Build it anew: REBUILD=1 $0"
echo "$wheel"
