#!/usr/bin/env python
"""Segment the validation set of YouTube-VOS and pack the masks for its evaluation server."""

import argparse
import zipfile
from pathlib import Path

from datasets.youtube_vos import YouTubeVOS
from engine import inference, options
from models import YouTubeVOSMemory
from utils.checkpoint import replacing


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--datapath", default=str(options.ROOT / "datasets" / "YOUTUBE"), help="folder that holds valid/meta.json"
    )
    parser.add_argument("--sequences", type=options.names, metavar="A,B", help="a subset of the videos")
    inference.add_options(parser, memory_length=4, pad_divisible=16, scale=0.5)
    return inference.parse(parser, argv)


def main(argv: list[str] | None) -> None:
    args = parse(argv)
    processes, output = options.start(args)
    with processes:
        data = YouTubeVOS(args.datapath, args.sequences)
        share = processes.share(data.names)
        propagator = inference.make_propagator(args, processes.device, YouTubeVOSMemory(args.memory_length))
        folder = output / "Annotations"
        videos = [video for video in data.videos() if video.name in share]
        settings = inference.settings_of(args)
        inference.segment_all(
            videos,
            propagator,
            folder.joinpath,
            settings,
            overwrite=args.overwrite,
            adapt_steps=args.adapt,
            quiet=not processes.first,
        )
        processes.gather("done")
        if processes.first:
            pack(folder, {video.name: sorted(video.wanted) for video in data.videos()}, output / "Annotations.zip")


def pack(folder: Path, frames: dict[str, list[str]], target: Path) -> None:
    """Zip Annotations/<video>/<frame>.png, what the evaluation server asks for."""
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for video, names in frames.items():
            for name in names:
                archive.write(folder / video / f"{name}.png", f"Annotations/{video}/{name}.png")


if __name__ == "__main__":
    options.run(main)
