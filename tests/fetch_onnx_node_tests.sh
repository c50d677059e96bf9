#!/bin/sh
# Puts the ONNX project's own node tests where tests/onnx_node_tests.rs looks for them: target/onnx-node-tests/<case>/.
# They come with the onnx wheel, of which only the test data is kept.
set -eu

version=1.22.0
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
destination="$root/target/onnx-node-tests"
if [ -d "$destination" ]; then
    echo "$destination is there already" >&2
    exit 0
fi

staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$staging" "onnx==$version"
mkdir -p "$root/target"
# Renamed into place only when complete, so that an interrupted copy is never taken for the whole suite.
rm -rf "$destination.partial"
cp -R "$staging/onnx/backend/test/data/node" "$destination.partial"
mv "$destination.partial" "$destination"
echo "$(ls "$destination" | wc -l) cases in $destination" >&2
