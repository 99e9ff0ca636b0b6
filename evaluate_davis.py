#!/usr/bin/env python
"""Segment DAVIS and score it as the official tool does."""

import argparse
import logging
from pathlib import Path

from datasets.davis import Davis
from engine import inference, options, scoring
from engine.reports import report_davis
from models import DavisMemory

log = logging.getLogger(__name__)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--datapath", default=str(options.ROOT / "datasets" / "DAVIS"), help="folder that holds JPEGImages/480p"
    )
    parser.add_argument("--year", type=int, default=2017, choices=[2016, 2017], help="2016: one object a sequence")
    parser.add_argument("--split", default="val", help="list of sequences, ImageSets/YEAR/SPLIT.txt")
    parser.add_argument("--sequences", type=options.names, metavar="A,B", help="a subset of them")
    parser.add_argument("--score_only", metavar="DIR", help="score the masks DIR/<sequence>/<frame>.png")
    parser.add_argument("--report", action="store_true", help="write report.html: curves, worst frames, settings")
    inference.add_options(parser, memory_length=5, pad_divisible=4, scale=1.0)
    return inference.parse(parser, argv)


def main(argv: list[str] | None) -> None:
    args = parse(argv)
    processes, output = options.start(args)
    with processes:
        davis = Davis(args.datapath, args.year, args.split, args.sequences)
        folder = Path(args.score_only or output / "DAVIS")
        if not args.score_only:
            inference.segment_share(args, processes, davis, DavisMemory(args.memory_length), folder)
        scores = {name: scoring.score_sequence(davis, name, folder) for name in processes.share(davis.names)}
        merged = {name: score for part in processes.gather(scores) for name, score in part.items()}
        if processes.first:
            scoring.report([score for name in davis.names for score in merged[name]], folder, args.split)
            if args.report:
                log.info("report: %s", report_davis(davis, merged, folder, vars(args)))


if __name__ == "__main__":
    options.run(main)
