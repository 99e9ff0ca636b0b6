"""Memory over a long video: python -m benchmarks.long_video [--frames 2000] [--quick]

A video file of that many frames goes through the propagator alone, through what demo.py does (every output) and
through what the web page does. Resident memory must not grow after frame 200.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import heading, table
from datasets.annotated import AnnotatedVideo
from datasets.synthetic import SyntheticVideo
from datasets.video import VideoFile
from datasets.video_writer import VideoWriter
from engine.inference import DEFAULT_CHECKPOINT, segment
from engine.outputs import OUTPUTS, write_all
from engine.session import Session
from models import MAMP, PRESETS, MaskPropagator
from utils.masks import write_mask


def resident() -> float:
    """Resident memory of this process now, in MB (Linux)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def make_video(path: Path, frames: int, size: tuple[int, int]) -> np.ndarray:
    """A video that goes there and back again; returns the labels of its first frame."""
    clip = SyntheticVideo(60, *size)
    rendered = [clip.render(t) for t in range(60)]
    there_and_back = [*range(60), *range(58, 0, -1)]
    with VideoWriter(path, 24) as writer:
        for t in range(frames):
            writer.write(rendered[there_and_back[t % len(there_and_back)]][0])
    return rendered[0][1]


def alone(propagator: MaskPropagator, path: Path, labels: np.ndarray, seen: Callable) -> None:
    for t, frame in enumerate(VideoFile(path)):
        propagator.step(frame, labels if t == 0 else None)
        seen(t)


def demo(propagator: MaskPropagator, path: Path, labels: np.ndarray, seen: Callable) -> None:
    folder = path.parent / "demo"
    write_mask(folder / "first.png", labels)
    video = AnnotatedVideo("long", VideoFile(path), {"00000": folder / "first.png"})
    with write_all(video, folder, list(OUTPUTS)) as write:

        def both(item):
            write(item)
            seen(item.number)

        segment(video, propagator.another(), folder / "masks", both, "both", quiet=True)


def page(propagator: MaskPropagator, path: Path, labels: np.ndarray, seen: Callable) -> None:
    session = Session(path, 10**6)
    session.give(0, labels)
    for item in session.propagate(propagator.another()):
        seen(item.number)
    session.export()
    seen(session.length)
    session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="frames of a sixteenth of the size")
    args = parser.parse_args()
    stops = sorted({10, 50, 200, 500, 1000, 1500, args.frames} & set(range(1, args.frames + 1)))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        labels = make_video(path, args.frames, (214, 120) if args.quick else (854, 480))
        for way in (alone, demo, page):
            propagator = MaskPropagator(MAMP.from_checkpoint(DEFAULT_CHECKPOINT), **PRESETS["default"])
            memory: dict[int, float] = {}

            def seen(t: int, memory: dict[int, float] = memory) -> None:
                if t + 1 in stops or t == args.frames:
                    memory[t + 1] = resident()

            way(propagator, path, labels, seen)
            growth = max(value for t, value in memory.items() if t >= 200) - memory[min(200, args.frames)]
            rows.append([way.__name__, *(f"{memory[t]:.0f}" for t in stops), f"{growth:+.0f}"])
    print(heading(), "\n")
    print(table(["MB at frame", *map(str, stops), "growth after 200"], rows))


if __name__ == "__main__":
    main()
