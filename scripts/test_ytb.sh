#!/bin/sh
# Segment YouTube-VOS and pack the masks for its server: sh test_ytb.sh --datapath YOUTUBE
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=$(sh "$root/scripts/setup.sh")
exec "$python" "$root/evaluate_ytb.py" "$@"
