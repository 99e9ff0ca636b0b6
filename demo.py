#!/usr/bin/env python
"""Segment your own video from the mask of its first frame, or a clip that the project makes itself."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from datasets import synthetic
from datasets.annotated import AnnotatedVideo, without_void
from datasets.demo import read_demo_folder
from datasets.video import VideoWriter, open_frames
from engine import inference, options
from models import DavisMemory
from utils.checkpoint import replacing
from utils.errors import UserError
from utils.masks import read_mask
from utils.metrics import score_object, statistics
from utils.visualization import ContactSheet, overlay

log = logging.getLogger(__name__)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--video", help="a video file or a folder of frames")
    parser.add_argument("--mask", help="the mask of its first frame: an indexed or grey PNG, pixel values are objects")
    parser.add_argument(
        "--datapath",
        default=str(options.ROOT / "datasets" / "DEMO"),
        metavar="DIR",
        help="DIR/valid_demo/{JPEGImages,Annotations}/<video>, if --video is not given; where "
        "there is no such folder, the project's own clip is made and used",
    )
    inference.add_options(parser, memory_length=5, pad_divisible=4, scale=1.0)
    args = inference.parse(parser, argv)
    if (args.video is None) != (args.mask is None):
        parser.error("--video and --mask go together")
    return args


def main(argv: list[str] | None) -> None:
    args = parse(argv)
    processes, output = options.start(args)
    videos = find_videos(args, output)
    propagator = inference.make_propagator(args, processes.device, DavisMemory(args.memory_length))
    inference.segment_all(
        [video for video, _ in videos],
        propagator,
        lambda name: output / name / "masks",
        inference.settings_of(args),
        overwrite=args.overwrite,
        adapt_steps=args.adapt,
        watch=lambda video: overlay_video(output / video.name, video.frames.fps),
    )
    for video, truth in videos:
        log.info("%s: masks/*.png, overlay.mp4, summary.png", output / video.name)
        if truth:
            print_score(truth, output / video.name / "masks")


@contextlib.contextmanager
def overlay_video(folder: Path, fps: Fraction) -> Iterator[inference.Consumer]:
    """Write overlay.mp4, every frame with its masks over it, and summary.png, some of them side by side."""
    sheet = ContactSheet()
    with VideoWriter(folder / "overlay.mp4", fps) as writer:

        def draw(frame: np.ndarray, labels: np.ndarray) -> None:
            picture = overlay(frame, labels)
            writer.write(picture)
            sheet.add(picture)

        yield draw
    with replacing(folder / "summary.png") as temporary:
        Image.fromarray(sheet.draw()).save(temporary, format="PNG")


def find_videos(args: argparse.Namespace, output: Path) -> list[tuple[AnnotatedVideo, Path | None]]:
    """What to segment, each with the folder of its true masks if there is one."""
    if args.video:
        frames = open_frames(args.video)
        first = next(iter(frames.names))
        name = Path(args.video).resolve().stem
        return [(AnnotatedVideo(name, frames, {first: Path(args.mask)}, convert=without_void), None)]
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
