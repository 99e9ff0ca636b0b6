#!/bin/sh
# Train on unlabelled video: sh train.sh --datapath DIR. The recipe of the weights in ckpt/: small crops, then larger
# ones, then two short runs with the optical flow as a second teacher, and the mean of the last three.
# Options given here override those below. After Ctrl-C the same command goes on. Result: results/train-mean.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=$(sh "$root/scripts/setup.sh")

train() {
    "$python" "$root/main_train.py" --datapath "$root/datasets/YOUTUBE/train_all_frames/JPEGImages" \
        --arch light --augmentation crop --ref_num 1 --schedule cosine --lr 1e-3 --weight_decay 0.01 \
        --is_amp --worker 2 --resume auto "$@"
}

train --proc_name train-128 --img_size 128 --bsize 16 --steps 3000 --ema 0.998 \
    --intervals 1,2,3,4,5,6 --interval_probs 1,1,1,1,1,1 "$@"
train --proc_name train-192 --init train-128 --img_size 192 --bsize 12 --steps 6000 --ema 0.999 --skip_static 2 \
    --intervals 1,2,3,4,5,6,8 --interval_probs 1,1,1,1,1,1,1 "$@"
flow="--init train-192 --img_size 192 --bsize 12 --steps 600 --lr 5e-4 --ema 0.99 --skip_static 2"
flow="$flow --intervals 1,2,3,4,5,6,8 --interval_probs 1,1,1,1,1,1,1"
train --proc_name train-flow-far $flow --flow_loss 0.02 "$@"
train --proc_name train-flow-near $flow --flow_loss 0.01 --zoom 0.6,2.0 "$@"
# Nothing is trained here, whatever number of steps is asked for
train --proc_name train-mean --init train-192,train-flow-far,train-flow-near --bsize 12 "$@" --steps 0
