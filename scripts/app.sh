#!/bin/sh
# Open the web page: sh app.sh, then http://127.0.0.1:7860 in a browser
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=$(sh "$root/scripts/setup.sh" requirements.txt requirements-app.txt)
exec "$python" "$root/app.py" "$@"
