#!/usr/bin/env python
"""Segment the validation set of YouTube-VOS and pack the masks for its evaluation server."""

import argparse
import zipfile
from pathlib import Path

from datasets.youtube_vos import YouTubeVOS
from engine import inference, options
from engine.reports import ConfidenceReport, report_confidence
from models import YouTubeVOSMemory
from utils.checkpoint import replacing


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--datapath", default=str(options.ROOT / "datasets" / "YOUTUBE"), help="folder that holds valid/meta.json"
    )
    parser.add_argument("--sequences", type=options.names, metavar="A,B", help="a subset of the videos")
    parser.add_argument("--report", action="store_true", help="write report.html: confidence curves, least sure frames")
    inference.add_options(parser, memory_length=4, pad_divisible=16, scale=0.5)
    return inference.parse(parser, argv)


def main(argv: list[str] | None) -> None:
    args = parse(argv)
    processes, output = options.start(args)
    with processes:
        data = YouTubeVOS(args.datapath, args.sequences)
        folder, confidence = output / "Annotations", ConfidenceReport()
        inference.segment_share(
            args,
            processes,
            data,
            YouTubeVOSMemory(args.memory_length),
            folder,
            overwrite=args.report,  # a report needs to see every frame
            watch=confidence.watch if args.report else None,
        )
        logs = {name: log for part in processes.gather(confidence.logs) for name, log in part.items()}
        if processes.first:
            if args.report:
                report_confidence(data.videos(), logs, folder, output / "report.html", vars(args))
            pack(folder, {video.name: sorted(video.wanted) for video in data.videos()}, output / "Annotations.zip")


def pack(folder: Path, frames: dict[str, list[str]], target: Path) -> None:
    """Zip Annotations/<video>/<frame>.png, what the evaluation server asks for."""
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for video, names in frames.items():
            for name in names:
                archive.write(folder / video / f"{name}.png", f"Annotations/{video}/{name}.png")


if __name__ == "__main__":
    options.run(main)
