#!/bin/sh
# Puts the headers of ap_int, ap_fixed and hls_stream where tests look for them: target/ap_types. They come from PyPI, in the wheel
# of hls4ml, which redistributes what AMD published of them.
set -eu

version=1.3.0
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
destination="$root/target/ap_types"
if [ -d "$destination" ]; then
    echo "$destination is there already" >&2
    exit 0
fi

staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$staging" "hls4ml==$version"
python3 -m zipfile -e "$staging"/hls4ml-*.whl "$staging/wheel"
mkdir -p "$root/target"
# Renamed into place only when complete, so that an interrupted copy is never taken for the whole.
rm -rf "$destination.partial"
cp -R "$staging/wheel/hls4ml/templates/vivado/ap_types" "$destination.partial"
mv "$destination.partial" "$destination"
