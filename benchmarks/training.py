"""Time and memory of the matching in a training step: python -m benchmarks.training [--quick]

Forward and backward at R = 6 on 256x256 samples (64x64 positions), one memory frame, against features that
are unfolded (the dense reference).
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.measure import heading, measure, table
from engine.objective import colour_loss, reconstruct
from functional import propagate
from models import MAMP


def matching(backend: str, batch: int):
    query, memory = torch.randn(batch, 64, 64, 64), torch.randn(batch, 1, 64, 64, 64)
    colour = torch.randn(batch, 1, 1, 64, 64)
    query.requires_grad_(), memory.requires_grad_()

    def step():
        propagate(query, memory, colour, radius=6, backend=backend).square().mean().backward()

    return step


def whole_step(arch: str, batch: int):
    model, frames = MAMP(arch).to(memory_format=torch.channels_last), torch.randn(batch, 2, 3, 256, 256)

    def step():
        colour_loss(reconstruct(model, frames, 1)[0], frames, 1).backward()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="batch 2 instead of 8")
    args = parser.parse_args()
    batch = 2 if args.quick else 8
    unit, memory = measure(matching, "dense", batch, repeats=1)
    rows = [["matching, unfolded features", "1.00", f"{memory:.0f}"]]
    for name, prepare, what in [
        ("matching, tiled", matching, "tiled"),
        ("whole step, light", whole_step, "light"),
        ("whole step, resnet18", whole_step, "resnet18"),
    ]:
        seconds, memory = measure(prepare, what, batch)
        rows.append([name, f"{seconds / unit:.3f}", f"{memory:.0f}"])
    print(heading())
    print(f"batch {batch}; 1.00 is {unit:.2f} s\n")
    print(table(["", "time / unfolded", "memory beyond inputs, MB"], rows))


if __name__ == "__main__":
    main()
