#!/bin/sh
# Print the Python to run the project with, after making sure that it has what is needed.
# Usage: python=$(sh scripts/setup.sh [FILE ...]); FILE is requirements.txt unless given.
# An active virtual environment that meets the requirements is used as it is; else .venv is made, once.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
[ $# -gt 0 ] || set -- requirements.txt

# meets PYTHON FILE...: whether every requirement is installed in a version that will do
meets() {
    python=$1
    shift
    (cd "$root" && "$python" scripts/check_requirements.py "$@") >&2
}

if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ]; then
    if meets "$VIRTUAL_ENV/bin/python" "$@"; then
        echo "setup: using the active environment $VIRTUAL_ENV" >&2
        echo "$VIRTUAL_ENV/bin/python"
        exit 0
    fi
    echo "setup: the active environment $VIRTUAL_ENV lacks the above; using $root/.venv instead" >&2
fi

venv=$root/.venv
if [ ! -x "$venv/bin/python" ]; then
    base=${PYTHON:-python3}
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: $base is not Python 3.10 or newer; name one with PYTHON=/path/to/python3" >&2
        exit 2
    }
    echo "setup: making $venv" >&2
    "$base" -m venv "$venv" >&2
fi
if ! meets "$venv/bin/python" "$@" 2>/dev/null; then
    echo "setup: installing $* into $venv (PyTorch is large: some minutes)" >&2
    for file in "$@"; do
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/$file" >&2
    done
fi
echo "setup: using $venv" >&2
echo "$venv/bin/python"
