#!/usr/bin/env python
"""Segment your own video from the masks of some of its frames, or a clip that the project makes itself."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from datasets import synthetic
from datasets.annotated import AnnotatedVideo
from datasets.demo import read_demo_folder
from engine import inference, options, own_video
from engine.directions import DIRECTIONS
from engine.outputs import OUTPUTS, write_all
from models import DavisMemory
from utils.errors import UserError
from utils.masks import read_mask
from utils.metrics import score_object, statistics

log = logging.getLogger(__name__)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    own_video.add_options(parser)
    parser.add_argument(
        "--direction",
        default="both",
        choices=DIRECTIONS,
        help="from each mask forward in time, backward, or both: between two masks from both sides",
    )
    parser.add_argument(
        "--outputs",
        type=options.names,
        default=["masks", "overlay", "summary"],
        metavar="A,B",
        help=f"what to write: masks, {', '.join(OUTPUTS)}",
    )
    parser.add_argument(
        "--datapath",
        default=str(options.ROOT / "datasets" / "DEMO"),
        metavar="DIR",
        help="DIR/valid_demo/{JPEGImages,Annotations}/<video>, if --video is not given; where "
        "there is no such folder, the project's own clip is made and used",
    )
    inference.add_options(parser, memory_length=5, pad_divisible=4, scale=1.0)
    args = inference.parse(parser, argv)
    own_video.check(args, parser)
    unknown = set(args.outputs) - OUTPUTS.keys() - {"masks"}
    if unknown:
        parser.error(f"--outputs: unknown {', '.join(unknown)}; there are masks, {', '.join(OUTPUTS)}")
    return args


def main(argv: list[str] | None) -> None:
    args = parse(argv)
    processes, output = options.start(args)
    videos = find_videos(args, output)
    args.scale = min(own_video.working_scale(video.frames, args.max_size, args.scale) for video, _ in videos)
    propagator = inference.make_propagator(args, processes.device, DavisMemory(args.memory_length))
    inference.segment_all(
        [video for video, _ in videos],
        propagator,
        lambda name: output / name / "masks",
        inference.settings_of(args)
        | {name: getattr(args, name) for name in ["start", "end", "every", "direction", "outputs"]},
        overwrite=args.overwrite,
        adapt_steps=args.adapt,
        direction=args.direction,
        masks="masks" in args.outputs,
        watch=lambda video: write_all(video, output / video.name, args.outputs),
    )
    for video, truth in videos:
        log.info("%s: %s", output / video.name, ", ".join(args.outputs))
        if truth and "masks" in args.outputs:
            print_score(truth, output / video.name / "masks")


def find_videos(args: argparse.Namespace, output: Path) -> list[tuple[AnnotatedVideo, Path | None]]:
    """What to segment, each with the folder of its true masks if there is one."""
    if args.video:
        return [(own_video.own_video(args, output), None)]
    root = Path(args.datapath)
    if not root.exists():
        if root != options.ROOT / "datasets" / "DEMO":
            raise UserError(f"{root}: no such folder; --datapath takes one that holds valid_demo/JPEGImages")
        log.info("no %s, so the demo clip is made", root)
        root = synthetic.write(output / "clip")
    return read_demo_folder(root)


def print_score(truth: Path, masks: Path) -> None:
    """Log J&F of masks against the true ones of the same names, first and last frame left out as in DAVIS."""
    files = sorted(truth.glob("*.png"))[1:-1]
    pairs = [(read_mask(file), read_mask(masks / file.name)) for file in files]
    objects = range(1, int(max(true.max() for true, _ in pairs)) + 1)
    means = []
    for i in objects:
        score = score_object(str(i), [true == i for true, _ in pairs], [mask == i for _, mask in pairs])
        means.append([statistics(score.j)[0], statistics(score.f)[0]])
    j, f = 100 * np.mean(means, axis=0)
    log.info("J&F %.1f  (J %.1f, F %.1f; %d objects, %d frames)", (j + f) / 2, j, f, len(means), len(files))


if __name__ == "__main__":
    options.run(main)
