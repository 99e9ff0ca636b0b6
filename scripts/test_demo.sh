#!/bin/sh
# Segment the demo clip, or your own video: sh test_demo.sh --video my.mp4 --mask first.png
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=$(sh "$root/scripts/setup.sh")
exec "$python" "$root/demo.py" "$@"
