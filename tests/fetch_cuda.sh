#!/bin/sh
# Puts the compiler of CUDA and its disassembler where tests/cuda.rs looks for them: target/cuda/nvidia/cu13/bin. They need no
# GPU. They come from PyPI, under NVIDIA's licence.
set -eu

version=13.5.37
cccl=13.3.5.0.6
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
destination="$root/target/cuda"
if [ -d "$destination" ]; then
    echo "$destination is there already" >&2
    exit 0
fi

staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$staging/cuda" \
    "nvidia-cuda-nvcc==$version" "nvidia-cuda-crt==$version" "nvidia-nvvm==$version" "nvidia-cuda-runtime==$version" \
    "nvidia-cuda-cccl==$cccl" "nvidia-cuda-nvdisasm==$version" "nvidia-cuda-cuobjdump==$version"
mkdir -p "$root/target"
# Renamed into place only when complete, so that an interrupted copy is never taken for the whole.
rm -rf "$destination.partial"
cp -R "$staging/cuda" "$destination.partial"
mv "$destination.partial" "$destination"
"$destination/nvidia/cu13/bin/nvcc" --version | tail -n 1 >&2
