#!/bin/sh
# Segment and score DAVIS: sh test_davis.sh --datapath DAVIS --year 2016
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=$(sh "$root/scripts/setup.sh")
exec "$python" "$root/evaluate_davis.py" "$@"
