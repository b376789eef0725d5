#!/usr/bin/env bash
# For a bare machine: a GPU, python3 with torch and pytest, no network. Tests, then measures.
# `make gpu-wheels` has put everything else into .whl/. Writes JSON and Markdown to $OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu}
packages=build/gpu-packages
mkdir -p "$out"
rm -rf "$packages"
python3 -m pip install --quiet --no-index --no-deps --target "$packages" .whl/*.whl
export PYTHONPATH=$PWD:$PWD/protos:$packages${PYTHONPATH:+:$PYTHONPATH}
# The settings in pyproject.toml and conftest.py need plugins that only developers have.
failed=0
python3 -m pytest -c /dev/null --rootdir . --noconftest -p no:cacheprovider -m gpu \
  -W ignore::pytest.PytestUnknownMarkWarning --junitxml "$out/tests.xml" tests/test_gpu.py || failed=$?
python3 -m benchmarks.gpu --out "$out" "$@" || failed=$?
exit "$failed"
