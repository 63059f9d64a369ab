#!/usr/bin/env bash
# What the tests stand on, made in .cache: a Python with the independent judges, and the real models.
# Re-runnable; needs python3 (3.11 or newer) with pip and venv.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.cache/venv
requirements=tests/requirements.txt
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
  echo "making $venv (numpy, scikit-learn, scipy, onnx, h5py, DuckDB, deltalake)"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
  cp "$requirements" "$venv/requirements.txt"
fi
bash scripts/fetch-models.sh .cache/models
