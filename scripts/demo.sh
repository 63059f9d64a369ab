#!/usr/bin/env bash
# From a fresh clone to the first pictures: fetches 15 real models, builds filterdb, ingests the models, and draws the
# shifts between tasks and the principal components of all filters. Running it again does only what is missing.
# Needs Rust and python3 (3.9 or newer) with pip. Everything made goes to target/ and .cache/.
#   FILTERDB_BIN=PATH   takes this binary and builds none
set -euo pipefail

started_in=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
models=.cache/models
dataset=.cache/demo.db

fail() {
  echo "demo: $1" >&2
  exit 1
}

headline() {
  printf '\n== %s\n' "$1"
}

# Shows a command as one would type it. It is on standard output, so it stands in order with what the command prints.
show() {
  echo "\$ $*"
}

find_binary() {
  if [ -n "${FILTERDB_BIN:-}" ]; then
    binary=$(command -v "$FILTERDB_BIN") || fail "FILTERDB_BIN: expected a program, found none at $FILTERDB_BIN"
    binary=$(cd "$(dirname "$binary")" && pwd)/$(basename "$binary") # a relative path starts where the user is
    return
  fi
  command -v cargo >/dev/null ||
    fail "expected cargo on the PATH, found none: install Rust (https://rustup.rs), or set FILTERDB_BIN"
  binary=${CARGO_TARGET_DIR:-target}/release/filterdb
}

build() {
  if [ ! -x "$binary" ]; then
    headline "Building filterdb: about 15 minutes on two cores, the first time"
    show cargo build --release --locked
  fi
  cargo build --release --locked
  [ -x "$binary" ] || fail "expected the binary at $binary after the build, found none: set FILTERDB_BIN to its path"
}

draw() {
  show "$binary query $dataset \\"$'\n'"    -f sql/study/$1.sql --format json |"$'\n'"    python3 scripts/draw.py $2"
  "$binary" query "$dataset" -f "sql/study/$1.sql" --format json | python3 scripts/draw.py "$2"
}

find_binary
cd "$root"

# The models come first: a machine without pip or network says so now, not after the build.
headline "Models: 15 files, 163 MB"
show scripts/fetch-models.sh "$models"
scripts/fetch-models.sh "$models"

if [ -z "${FILTERDB_BIN:-}" ]; then
  build
fi

headline "Taking the models in"
show "$binary ingest $dataset $models \\"$'\n'"    --metadata demo/models.csv"
"$binary" ingest "$dataset" "$models" --metadata demo/models.csv

headline "How far apart are the filters of different tasks? (Fig 3 of the paper)"
draw fig3-shift-task heatmap

headline "What do filters look like? (Fig 1 of the paper)"
draw fig1-components-all components

headline "Try next"
if [ "$started_in" != "$root" ]; then
  echo "cd $(printf %q "$root")"
fi
cat <<END
$binary models $dataset
$binary inspect $models/nudenet/320n.onnx
$binary query $dataset \\
  "SELECT model, name, sparsity FROM layers ORDER BY sparsity DESC LIMIT 5"
$binary query $dataset    # a prompt
END
