#!/bin/sh
# Train on unlabelled video: sh train.sh --datapath DIR. Options given here override those below.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=$(sh "$root/scripts/setup.sh")
exec "$python" "$root/main_train.py" --datapath "$root/datasets/YOUTUBE/train_all_frames/JPEGImages" \
    --arch light --img_size 128 --augmentation crop --ref_num 1 --bsize 16 --steps 3000 \
    --intervals 1,2,3,4,5,6 --interval_probs 1,1,1,1,1,1 \
    --schedule cosine --lr 1e-3 --weight_decay 0.01 --ema 0.998 --is_amp --worker 2 "$@"
