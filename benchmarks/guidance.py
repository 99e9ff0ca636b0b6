"""What confidence tells and what a second mask brings: python -m benchmarks.guidance --datapath DAVIS [--sequences A,B]

Every sequence of DAVIS-2016 is segmented from its first mask; from its first and its middle one, forward only and
both ways; and from its first and last one, both ways. J&F leaves out the first, the middle and the last frame.
"""

from __future__ import annotations

import argparse
import logging

import numpy as np
from scipy.stats import pearsonr, spearmanr

from benchmarks.measure import heading, table
from datasets.annotated import AnnotatedVideo
from datasets.davis import Davis
from engine import options
from engine.directions import label_frames
from engine.inference import DEFAULT_CHECKPOINT
from models import MAMP, PRESETS, MaskPropagator
from utils.metrics import jaccard, score_object

WAYS = {
    "first mask": ("first", "forward"),
    "+ middle, forward": ("first middle", "forward"),
    "+ middle, both ways": ("first middle", "both"),
    "+ last, both ways": ("first last", "both"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datapath", required=True, help="DAVIS folder")
    parser.add_argument("--sequences", type=options.names, help="a subset of the validation set")
    parser.add_argument("--resume", default=DEFAULT_CHECKPOINT, help="weights")
    parser.add_argument("--scale", type=float, default=1.0, help="size to work at")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    davis = Davis(args.datapath, 2016, "val", args.sequences)
    settings = PRESETS["default"] | {"scale": args.scale}
    propagator = MaskPropagator(MAMP.from_checkpoint(args.resume), **settings)
    rows, confidence, true_j = [], [], []
    for video in davis.videos():
        files = sorted((davis.root / "Annotations" / "480p" / video.name).glob("*.png"))
        truth = [davis.truth(file)[0] > 0 for file in files]
        at = {"first": 0, "middle": len(files) // 2, "last": len(files) - 1}
        scored = [t for t in range(len(files)) if t not in at.values()]
        row = [video.name]
        for masks, direction in WAYS.values():
            given = {video.frames.name(at[which]): files[at[which]] for which in masks.split()}
            guided = AnnotatedVideo(video.name, video.frames, given, read=davis.read)
            items = list(label_frames(guided, propagator, direction, confident=True))
            score = score_object("", [truth[t] for t in scored], [items[t].labels > 0 for t in scored])
            row.append(50 * (score.j.mean() + score.f.mean()))
            if masks == "first":
                confidence += [items[t].confidence.get(1, 0.0) for t in scored]
                true_j += [jaccard(truth[t], items[t].labels > 0) for t in scored]
        rows.append(row)
    means = ["mean", *np.mean([row[1:] for row in rows], 0)]
    print(heading(), "\n")
    print(table(["J&F", *WAYS], [[row[0], *(f"{value:.1f}" for value in row[1:])] for row in [*rows, means]]))
    pearson, spearman = (measure(confidence, true_j)[0] for measure in (pearsonr, spearmanr))
    print(f"\nconfidence and true J over {len(true_j)} frames: Pearson {pearson:.2f}, Spearman {spearman:.2f}")


if __name__ == "__main__":
    main()
