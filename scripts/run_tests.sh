#!/bin/sh
# Lint and test, in an environment of the project's own: sh run_tests.sh [pytest arguments]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=$(sh "$root/scripts/setup.sh" requirements.txt requirements-app.txt requirements-dev.txt)
cd "$root"
"$python" -m ruff check .
"$python" -m ruff format --check .
exec "$python" -m pytest "$@"
