#!/usr/bin/env bash
# For a bare machine: a GPU, python3 with torch and pytest, no network. Tests, then measures.
# `make gpu-wheels` has put everything else into .whl/. Writes to $OUT, as far as it got:
# machine.txt, tests.txt, tests.xml, gpu.txt, gpu.json, gpu.md, profile.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu}
packages=build/gpu-packages
mkdir -p "$out"
# Seconds of each stage; together less than the ten minutes that a lent machine gives a command.
test_seconds=${TEST_SECONDS:-200}
measure_seconds=${MEASURE_SECONDS:-330}
export PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1

# A stage that hangs says where (SIGABRT prints every thread's stack), and the next one has its time.
stage() {
  local name=$1 seconds=$2 status=0
  shift 2
  echo "== $name, at most $seconds s"
  timeout --signal=ABRT --kill-after=10 "$seconds" "$@" >"$out/$name.txt" 2>&1 || status=$?
  tail -n 60 "$out/$name.txt"
  echo "== $name: exit $status after ${SECONDS} s in all"
  return "$status"
}

rm -rf "$packages"
python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$packages" .whl/*.whl
export PYTHONPATH=$PWD:$PWD/protos:$packages${PYTHONPATH:+:$PYTHONPATH}
failed=0
stage machine 20 bash -c 'nvidia-smi; python3 -m torch.utils.collect_env' || true
# The settings in pyproject.toml and conftest.py need plugins that only developers have.
stage tests "$test_seconds" python3 -m pytest -v -c /dev/null --rootdir . --noconftest \
  -p no:cacheprovider -m gpu -W ignore::pytest.PytestUnknownMarkWarning --durations 10 \
  --junitxml "$out/tests.xml" tests/test_gpu.py || failed=$?
stage gpu "$measure_seconds" python3 -m benchmarks.gpu --out "$out" "$@" || failed=$?
exit "$failed"
