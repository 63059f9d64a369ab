#!/usr/bin/env bash
# Runs all tests: makes what they need (scripts/setup-tests.sh), then cargo test in the one profile that the
# project uses. Arguments go to cargo test.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup-tests.sh
exec cargo test --release --locked "$@"
