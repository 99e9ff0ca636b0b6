#!/usr/bin/env python
"""Train an encoder on unlabelled video. Its options, one by one, are the recipe."""

import argparse

from engine import options
from engine.training import Trainer
from models.encoder import ENCODERS


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add(
        "--datapath",
        type=options.names,
        required=True,
        metavar="DIR[,DIR]",
        help="folders with video files, or with a folder of frames a video (YouTube-VOS)",
    )
    add("--savepath", default=str(options.ROOT / "results"), help="outputs go to SAVEPATH/PROC_NAME")
    add("--proc_name", default="train", help="name of this run")
    add("--cache", default=str(options.ROOT / "cache"), help="video files are decoded once into this folder")
    add("--resume", help="last.pt of a run to go on with; auto: this run's own, if there is one")
    add(
        "--init",
        type=options.names,
        metavar="FILE|RUN[,...]",
        help="weights to start from: a file or the name of a run in SAVEPATH, or several, whose mean it is",
    )
    add("--arch", default="resnet18", choices=list(ENCODERS), help="encoder")
    add("--train_corr_radius", type=int, default=6, help="matching radius at stride 4")
    add("--ref_num", type=int, default=2, help="memory frames a sample")
    add("--img_size", type=int, default=256, help="side of the samples in pixels, a multiple of 4")
    add("--intervals", type=options.numbers(int), default=[2, 5, 8], help="frames between neighbours of a sample")
    add("--interval_probs", type=options.numbers(float), default=[0.4, 0.4, 0.2], help="how often each is drawn")
    add(
        "--augmentation",
        default="squash",
        choices=["squash", "crop"],
        help="squash whole frames (the paper), or crop and mirror",
    )
    add("--zoom", type=options.numbers(float), default=[0.6, 1.2], help="crops are at so many times a 256-pixel frame")
    add("--skip_static", type=float, default=0.0, help="redraw samples that change less, in grey levels")
    add(
        "--flow_loss",
        type=float,
        default=0.0,
        help="weight of the loss that asks features to find what the optical flow found; the paper's is 0",
    )
    add("--epochs", type=int, default=33, help="times through all frames")
    add("--steps", type=int, help="stop after so many steps instead of --epochs")
    add("--bsize", type=int, default=24, help="samples a step, over all processes")
    add("--lr", type=float, default=1e-3, help="learning rate at its highest, for the whole batch")
    add(
        "--schedule",
        default="paper",
        choices=["paper", "cosine"],
        help="halved at 0.4, 0.6, 0.8, 1.0 million samples, or warm-up and cosine",
    )
    add("--warmup", type=int, default=100, help="steps of warm-up of the cosine schedule")
    add("--weight_decay", type=float, default=0.0, help="AdamW's; 0 makes it Adam")
    add("--ema", type=float, default=0.0, help="average the weights with this decay, e.g. 0.999; 0: do not")
    add("--worker", type=int, default=8, help="processes that load data")
    add("--is_amp", action="store_true", help="half precision: float16 on CUDA, bfloat16 on a CPU that has it")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--seed", type=int, default=0)
    add("--log_every", type=int, default=20, help="steps")
    add("--picture_every", type=int, default=500, help="steps between pictures in TensorBoard")
    add("--save_every", type=int, default=500, help="steps")
    add("--eval_datapath", help="DAVIS folder to log J&F on while training")
    add("--eval_year", type=int, default=2017, choices=[2016, 2017])
    add("--eval_sequences", type=options.names, help="a subset of its sequences")
    add("--eval_every", type=int, default=2000, help="steps")
    args = parser.parse_args(argv)
    if args.img_size % 4 or args.img_size < 32:
        parser.error("--img_size must be a multiple of 4, 32 or more")
    if len(args.zoom) != 2 or not 0 < args.zoom[0] <= args.zoom[1]:
        parser.error("--zoom takes two numbers above 0, the lower one first")
    return args


def main(argv: list[str] | None) -> None:
    args = parse(argv)
    processes, _ = options.start(args)
    with processes:
        half = options.half_precision(args.is_amp, processes.device)
        Trainer(args, processes, half).run()


if __name__ == "__main__":
    options.run(main)
