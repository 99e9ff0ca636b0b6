"""Memory over a long video: python -m benchmarks.long_video [--frames 2000] [--quick]

The propagator steps through a video that never ends; resident memory must not grow.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from benchmarks.measure import heading, table
from datasets.synthetic import SyntheticVideo
from models import MAMP, PRESETS, MaskPropagator


def resident() -> float:
    """Resident memory of this process now, in MB (Linux)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="frames of a quarter of the size")
    args = parser.parse_args()
    video = SyntheticVideo(60, *((428, 240) if args.quick else (854, 480)))
    rendered = [video.render(t) for t in range(video.length)]
    propagator = MaskPropagator(MAMP("light").eval(), **PRESETS["default"])
    there_and_back = [*range(60), *range(58, 0, -1)]
    rows = []
    for t in range(args.frames):
        frame, labels = rendered[there_and_back[t % len(there_and_back)]]
        out = propagator.step(frame, labels if t == 0 else None)
        if t + 1 in (10, 50, 200, 500, 1000, 1500) or t + 1 == args.frames:
            rows.append([str(t + 1), f"{resident():.0f}", str(len(propagator.bank)), str(np.unique(out).size - 1)])
    print(heading(), torch.get_num_threads(), "\n")
    print(table(["frame", "resident memory, MB", "frames remembered", "objects"], rows))


if __name__ == "__main__":
    main()
