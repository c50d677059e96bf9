#!/bin/bash
# Runs every test of the project. What it needs and can fetch it fetches first; what is missing then is named.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."

command -v cargo > /dev/null || { echo "cargo is missing; install Rust from https://rustup.rs" >&2; exit 1; }
for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version > /dev/null 2>&1 || rustup component add "$component"
done

if ! sh tests/fetch_onnx_node_tests.sh; then
    echo "cannot fetch ONNX's node tests: they need python3 with pip, and PyPI" >&2
    # On a machine of a user the tests that need them say that they are skipped; in CI nothing may be skipped.
    [ -z "${CI:-}" ] || exit 1
fi

if ! sh tests/fetch_cuda.sh; then
    echo "cannot fetch the compiler of CUDA: it needs python3 with pip, and PyPI" >&2
    [ -z "${CI:-}" ] || exit 1
fi

if ! sh tests/fetch_ap_types.sh; then
    echo "cannot fetch the headers of ap_int: they need python3 with pip, and PyPI" >&2
    [ -z "${CI:-}" ] || exit 1
fi

# Verilator runs the machine in SystemVerilog, Yosys synthesises parts of it, PoCL runs OpenCL. Without them those tests are
# skipped, but in CI.
missing=()
for tool in g++ make verilator yosys; do
    command -v "$tool" > /dev/null || missing+=("$tool")
done
ls /usr/include/CL/cl.h /usr/lib/*/libOpenCL.so > /dev/null 2>&1 || missing+=(ocl-icd-opencl-dev)
ls "${OCL_ICD_VENDORS:-/etc/OpenCL/vendors}"/*.icd > /dev/null 2>&1 || missing+=(pocl-opencl-icd)
install() {
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || return 1
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}
if [ ${#missing[@]} -gt 0 ] && ! install "${missing[@]}"; then
    echo "not installed: ${missing[*]}; install these packages to run all tests" >&2
    [ -z "${CI:-}" ] || exit 1
fi

set -x
cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps
cargo check -p tcc --lib --no-default-features
cargo test --workspace
