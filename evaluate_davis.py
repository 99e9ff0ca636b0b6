#!/usr/bin/env python
"""Segment DAVIS and score it as the official tool does."""

import argparse
from pathlib import Path

from datasets.davis import Davis
from engine import inference, options, scoring
from models import DavisMemory


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--datapath", default=str(options.ROOT / "datasets" / "DAVIS"), help="folder that holds JPEGImages/480p"
    )
    parser.add_argument("--year", type=int, default=2017, choices=[2016, 2017], help="2016: one object a sequence")
    parser.add_argument("--split", default="val", help="list of sequences, ImageSets/YEAR/SPLIT.txt")
    parser.add_argument("--sequences", type=options.names, metavar="A,B", help="a subset of them")
    parser.add_argument("--score_only", metavar="DIR", help="score the masks DIR/<sequence>/<frame>.png")
    inference.add_options(parser, memory_length=5, pad_divisible=4, scale=1.0)
    return inference.parse(parser, argv)


def main(argv: list[str] | None) -> None:
    args = parse(argv)
    processes, output = options.start(args)
    with processes:
        davis = Davis(args.datapath, args.year, args.split, args.sequences)
        share = processes.share(davis.names)
        if args.score_only:
            folder = Path(args.score_only)
        else:
            folder = output / "DAVIS"
            propagator = inference.make_propagator(args, processes.device, DavisMemory(args.memory_length))
            videos = [video for video in davis.videos() if video.name in share]
            settings = inference.settings_of(args) | {"year": args.year}
            inference.segment_all(
                videos,
                propagator,
                folder.joinpath,
                settings,
                overwrite=args.overwrite,
                adapt_steps=args.adapt,
                quiet=not processes.first,
            )
        scores = {name: scoring.score_sequence(davis, name, folder) for name in share}
        merged = {name: score for part in processes.gather(scores) for name, score in part.items()}
        if processes.first:
            scoring.report([score for name in davis.names for score in merged[name]], folder, args.split)


if __name__ == "__main__":
    options.run(main)
