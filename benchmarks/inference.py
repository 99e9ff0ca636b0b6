"""Time and memory of one frame of inference, and of its parts: python -m benchmarks.inference [--quick] [--dense]

Times are ratios to the ResNet-18 encoder in the same run, since machines differ and are noisy. The frames are
the synthetic video's, or a real video's with --frames DIR --mask FIRST.png. Memory frames: 5, R = 12, top 36.
"""

from __future__ import annotations

import argparse
from itertools import islice

import numpy as np
import torch

from benchmarks.measure import heading, measure, table
from datasets.annotated import without_void
from datasets.synthetic import SyntheticVideo
from datasets.transforms import to_lab
from datasets.video import open_frames
from engine.options import half_precision
from functional import propagate_labels
from models import MAMP, PRESETS, MaskPropagator
from models.encoder import for_inference
from models.optical_flow import DIS
from utils.masks import read_mask

SIZES = {"480p": (854, 480), "1080p": (1920, 1080)}
STEPS = 12  # from the seventh frame on, all five memory frames are there


def first_frames(size: str, objects: int, source: tuple[str, str] | None) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames and the labels of the first; ``objects`` parts of equal height are made of what is annotated."""
    if source:
        frames = list(islice(open_frames(source[0]), STEPS))
        labels = without_void(read_mask(source[1], frames[0].shape[:2]))
    else:
        video = SyntheticVideo(60, *SIZES[size])
        frames, labels = [video.render(t)[0] for t in range(STEPS)], video.render(0)[1]
    rows = np.flatnonzero(labels.any(1))
    part = 1 + (np.arange(len(labels)) - rows[0]) * objects // (rows[-1] - rows[0] + 1)
    return frames, np.where(labels > 0, part.clip(1, objects)[:, None], 0).astype(np.uint8)


def encoder(arch: str, size: str, source):
    frames, _ = first_frames(size, 1, source)
    run = for_inference(MAMP(arch).encoder)
    lab = torch.from_numpy(to_lab(frames[0][: frames[0].shape[0] // 4 * 4, : frames[0].shape[1] // 4 * 4]))[None]
    return torch.inference_mode()(lambda: run(lab.contiguous(memory_format=torch.channels_last)))


def flow(size: str, source):
    frames, _ = first_frames(size, 1, source)
    dis = DIS()
    return lambda: dis(frames[0], frames[1:6], [1, 2, 3, 4, 5])


def matching(backend: str, objects: int, size: str, source):
    """Label propagation as the propagator calls it, on the inputs of its last step."""
    calls = []

    def record(*arguments, **options):
        calls.append((arguments, options))
        return propagate_labels(*arguments, **options)

    import models.propagator

    models.propagator.propagate_labels = record
    whole_step("lab", objects, size, source)()
    arguments, options = calls[-1]
    features = torch.randn(64, *arguments[0].shape[-2:], generator=torch.Generator().manual_seed(0))
    features = features.contiguous(memory_format=torch.preserve_format)
    memory = torch.randn(len(arguments[1]), *features.shape).contiguous(memory_format=torch.channels_last)
    options |= {"backend": backend, "metric": "dot", "temperature": None}
    return torch.inference_mode()(lambda: propagate_labels(features, memory, *arguments[2:], **options))


def whole_step(arch: str, objects: int, size: str, source, preset: str = "default", amp: bool = False):
    """The propagator's step with the memory full."""
    frames, labels = first_frames(size, objects, source)
    half = half_precision(amp, torch.device("cpu"))
    propagator = MaskPropagator(MAMP(arch).eval(), half=half, **PRESETS[preset])
    propagator.step(frames[0], labels)
    for frame in frames[1:]:
        propagator.step(frame)
    return lambda: propagator.step(frames[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="480p only")
    parser.add_argument("--dense", action="store_true", help="the dense reference too (minutes, over 4 GB)")
    parser.add_argument("--frames", help="a video file or folder of frames, instead of the synthetic video")
    parser.add_argument("--mask", help="the mask of its first frame")
    args = parser.parse_args()
    source = (args.frames, args.mask) if args.frames else None
    sizes = ["480p"] if args.quick or source else list(SIZES)

    unit, memory = measure(encoder, "resnet18", "480p", source, repeats=7)
    rows = [["encoder resnet18, 480p", "1.00", f"{memory:.0f}"]]

    def row(name: str, prepare, *arguments, repeats: int = 3) -> None:
        seconds, memory = measure(prepare, *arguments, repeats=repeats)
        rows.append([name, f"{seconds / unit:.3f}", f"{memory:.0f}"])

    for size in sizes:
        if size != "480p":
            row(f"encoder resnet18, {size}", encoder, "resnet18", size, source)
        row(f"encoder light, {size}", encoder, "light", size, source)
        row(f"DIS flow to 5 frames, {size}", flow, size, source)
        for objects in (1, 3, 10):
            for backend in ("compiled", "tiled"):
                row(f"matching {backend}, {objects} objects, {size}", matching, backend, objects, size, source)
        for arch in ("light", "resnet18"):
            for objects in (1, 10):
                row(f"whole step {arch}, {objects} objects, {size}", whole_step, arch, objects, size, source)
        row(f"whole step light, --is_amp, {size}", whole_step, "light", 1, size, source, "default", True)
        row(f"whole step light, --preset fast, {size}", whole_step, "light", 1, size, source, "fast")
        row(f"the same, --is_amp, {size}", whole_step, "light", 1, size, source, "fast", True)
    if args.dense:
        row("matching dense reference, 1 object, 480p", matching, "dense", 1, "480p", source, repeats=0)
    print(heading())
    print(f"1.00 is {unit:.2f} s\n")
    print(table(["", "time / ResNet-18 encoder", "memory beyond inputs, MB"], rows))


if __name__ == "__main__":
    main()
